"""Where this worker is entered in hashes of workers: watched conversations, present users.

An entry is gone when its worker takes it out, when somebody who found nobody listening does
so in its stead, or when no worker renewed the hash for its time. Each worker renews all its
entries in time, and at once when the server was reached anew: it may be another.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from trunkline.adapters.redis.link import pack
from trunkline.adapters.redis.scripts import SHAS
from trunkline.adapters.redis.servers import Call, Servers
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import TierUnavailable
from trunkline.model import WorkerId

Place = TypeVar("Place", bound=Hashable)

_SLICE: Final = 500
"""Entries renewed by one round trip."""
_RENEWALS: Final = 3
"""How often an entry is renewed within its time."""
_PAUSE_SECONDS: Final = 0.02
_RETRY_SECONDS: Final = 0.5


class Registrations(Generic[Place]):
    """The places of one kind; `name` gives the hash tag and the hash of a place."""

    def __init__(
        self,
        servers: Servers,
        worker: WorkerId,
        settings: Settings,
        name: Callable[[Place], tuple[bytes, bytes]],
    ) -> None:
        self._servers = servers
        self._worker = worker
        self._name = name
        self._seconds = settings.read_seconds
        self._expiry_ms = round(settings.registration_seconds * 1000)
        self._held: set[Place] = set()
        # What could not be told to a server that was away.
        self._to_enter: set[Place] = set()
        self._to_leave: set[Place] = set()
        self.on_behind: Callable[[], None] = lambda: None

    @property
    def holds_any(self) -> bool:
        """Whether this worker should be entered anywhere."""
        return bool(self._held)

    async def add(self, places: Collection[Place]) -> None:
        """Enters this worker; raises `TierUnavailable`: then it is entered later."""
        self._held.update(places)
        self._to_leave.difference_update(places)
        try:
            await self._enter(places)
        except TierUnavailable:
            self._to_enter.update(self._held.intersection(places))
            self.on_behind()
            raise

    async def remove(self, places: Collection[Place], worker: WorkerId | None) -> None:
        """Takes out this worker or another; raises `TierUnavailable`.

        What concerns this worker is then taken out later.
        """
        if worker is not None and worker != self._worker:
            await self._leave(places, worker)
            return
        self._held.difference_update(places)
        self._to_enter.difference_update(places)
        try:
            await self._leave(places, self._worker)
        except TierUnavailable:
            self._to_leave.update(set(places) - self._held)
            self.on_behind()
            raise

    async def catch_up(self) -> bool:
        """Tells what could not be told; raises `TierUnavailable`.

        Returns whether this worker was entered anywhere, later than it wished.
        """
        late = bool(self._to_enter)
        while self._to_leave:
            places = list(islice(self._to_leave, _SLICE))
            await self._leave(places, self._worker)
            self._to_leave.difference_update(places)
        while self._to_enter:
            places = list(islice(self._to_enter, _SLICE))
            await self._enter(places)
            self._to_enter.difference_update(places)
        return late

    async def renew(self, pause_seconds: float) -> None:
        """Enters this worker wherever it stands, slice by slice; raises `TierUnavailable`."""
        held = list(self._held)
        for start in range(0, len(held), _SLICE):
            # What was taken out meanwhile must not come back.
            await self._enter([p for p in held[start : start + _SLICE] if p in self._held])
            await asyncio.sleep(pause_seconds)

    def in_slices(self) -> list[list[Place]]:
        """Where this worker should be entered, in parts for `mend`."""
        return list(_slices(list(self._held)))

    async def mend(self, places: Collection[Place]) -> list[Place]:
        """Enters this worker again at those of some places where it is missing.

        Returns these; raises `TierUnavailable`.
        """
        calls: list[Call] = []
        for place in places:
            tag, name = self._name(place)
            calls.append((self._servers.of(tag), pack((b"HEXISTS", name, self._worker))))
        stands = await self._servers.call(calls, self._seconds)
        missing = [p for p, is_there in zip(places, stands, strict=True) if not is_there]
        missing = [place for place in missing if place in self._held]
        await self._enter(missing)
        return missing

    async def leave(self) -> None:
        """Takes this worker out everywhere, at its end; raises `TierUnavailable`."""
        places = self._held | self._to_leave
        for told in (self._held, self._to_enter, self._to_leave):
            told.clear()
        await self._leave(places, self._worker)

    async def _enter(self, places: Collection[Place]) -> None:
        for some in _slices(places):
            calls: list[Call] = []
            for place in some:
                tag, name = self._name(place)
                command = (b"EVALSHA", SHAS["register"], 1, name, self._worker, self._expiry_ms)
                calls.append((self._servers.of(tag), pack(command)))
            await self._servers.call(calls, self._seconds)

    async def _leave(self, places: Collection[Place], worker: WorkerId) -> None:
        for some in _slices(places):
            calls: list[Call] = []
            for place in some:
                tag, name = self._name(place)
                calls.append((self._servers.of(tag), pack((b"HDEL", name, worker))))
            await self._servers.call(calls, self._seconds)


def _slices(places: Collection[Place]) -> Iterator[list[Place]]:
    """Parts of a size that fits among what else is in flight."""
    rest = iter(places)
    while some := list(islice(rest, _SLICE)):
        yield some


class Renewal:
    """Renews registrations in time, and at once when told so.

    `on_gap` is called after this worker was missing somewhere: what was published meanwhile
    did not reach it.
    """

    def __init__(
        self,
        settings: Settings,
        on_gap: Callable[[], None],
        *registrations: Registrations[Any],
    ) -> None:
        self._on_gap = on_gap
        self._interval = settings.registration_seconds / _RENEWALS
        self._registrations = registrations
        self._due = asyncio.Event()
        self._forgotten = False
        self._gap = False
        for part in registrations:
            part.on_behind = self._due.set

    def now(self) -> None:
        """The server was reached anew: it may know nothing."""
        self._forgotten = self._forgotten or any(part.holds_any for part in self._registrations)
        self._due.set()

    async def run(self) -> None:
        """Renews until cancelled."""
        now = asyncio.get_running_loop().time
        renew_at = now() + self._interval
        while True:
            try:
                async with asyncio.timeout_at(renew_at):
                    await self._due.wait()
            except TimeoutError:
                renew_at = now() + self._interval
                renewing, pause_seconds = True, _PAUSE_SECONDS  # nothing is lost: others first
            else:
                renewing, pause_seconds = self._forgotten, 0.0
            self._due.clear()
            forgotten, self._forgotten = self._forgotten, False
            self._gap = self._gap or forgotten
            try:
                for part in self._registrations:
                    self._gap = await part.catch_up() or self._gap
                    if renewing:
                        await part.renew(pause_seconds)
            except TierUnavailable:
                self._forgotten = self._forgotten or renewing
                self._due.set()
                await asyncio.sleep(min(_RETRY_SECONDS, self._interval))
                continue
            if self._gap:
                self._gap = False
                self._on_gap()
