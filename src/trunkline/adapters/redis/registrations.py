"""Where this worker is entered in hashes of workers: watched conversations, present users.

An entry is gone when its worker takes it out, when somebody who found nobody listening does
so in its stead, or when no worker renewed the hash for its time. Each worker renews all its
entries in time, and at once when the server was reached anew: it may be another.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable
from typing import Any, Final, Generic, TypeVar

from trunkline.adapters.redis.link import pack
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
        # Taken out while the server was away: as they are not taken out by themselves.
        self._left: set[Place] = set()

    async def add(self, places: Collection[Place]) -> None:
        """Enters this worker; raises `TierUnavailable`: then it is entered later."""
        self._held.update(places)
        self._left.difference_update(places)
        await self._servers.call(self._entering(places), self._seconds)

    async def remove(self, places: Collection[Place], worker: WorkerId | None) -> None:
        """Takes out this worker or another; raises `TierUnavailable`.

        What concerns this worker is then taken out later.
        """
        if worker is None or worker == self._worker:
            self._held.difference_update(places)
            self._left.update(places)
            await self._servers.call(self._leaving(places, self._worker), self._seconds)
            self._left.difference_update(places)
        else:
            await self._servers.call(self._leaving(places, worker), self._seconds)

    async def renew(self, pause_seconds: float) -> None:
        """Enters this worker wherever it stands, slice by slice; raises `TierUnavailable`."""
        held, left = list(self._held), list(self._left)
        for start in range(0, len(left), _SLICE):
            places = [p for p in left[start : start + _SLICE] if p in self._left]
            await self._servers.call(self._leaving(places, self._worker), self._seconds)
            self._left.difference_update(places)
        for start in range(0, len(held), _SLICE):
            # What was taken out meanwhile must not come back.
            places = [p for p in held[start : start + _SLICE] if p in self._held]
            await self._servers.call(self._entering(places), self._seconds)
            await asyncio.sleep(pause_seconds)

    async def leave(self) -> None:
        """Takes this worker out everywhere, at its end; raises `TierUnavailable`."""
        places = list(self._held | self._left)
        self._held.clear()
        self._left.clear()
        for start in range(0, len(places), _SLICE):
            leaving = self._leaving(places[start : start + _SLICE], self._worker)
            await self._servers.call(leaving, self._seconds)

    def _entering(self, places: Collection[Place]) -> list[Call]:
        calls = []
        for place in places:
            tag, name = self._name(place)
            server = self._servers.of(tag)
            calls.append((server, pack((b"HSET", name, self._worker, b""))))
            calls.append((server, pack((b"PEXPIRE", name, self._expiry_ms))))
        return calls

    def _leaving(self, places: Collection[Place], worker: WorkerId) -> list[Call]:
        calls = []
        for place in places:
            tag, name = self._name(place)
            command = pack((b"HDEL", name, worker))
            calls.append((self._servers.of(tag), command))
        return calls


class Renewal:
    """Renews registrations in time, and at once when told so."""

    def __init__(self, settings: Settings, *registrations: Registrations[Any]) -> None:
        self._interval = settings.registration_seconds / _RENEWALS
        self._registrations = registrations
        self._due = asyncio.Event()

    def now(self) -> None:
        """The server was reached anew: it may know nothing."""
        self._due.set()

    async def run(self) -> None:
        """Renews until cancelled."""
        while True:
            pause_seconds = 0.0
            try:
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            except TimeoutError:
                pause_seconds = _PAUSE_SECONDS  # nothing is lost: others go first
            self._due.clear()
            try:
                for registrations in self._registrations:
                    await registrations.renew(pause_seconds)
            except TierUnavailable:
                self._due.set()
                await asyncio.sleep(min(_RETRY_SECONDS, self._interval))
