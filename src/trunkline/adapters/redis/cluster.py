"""The masters of a Redis Cluster: each key goes to the one that has its slot.

The slots are asked for at the start, every few seconds, and after an answer that says that
they moved (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

import asyncio
import logging
from binascii import crc_hqx
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Final

from trunkline.adapters.redis.connection import Connection
from trunkline.adapters.redis.dialling import Address, Dialler
from trunkline.adapters.redis.keys import Keys
from trunkline.adapters.redis.link import Link, LinkLost, Reply, ReplyError, pack
from trunkline.adapters.redis.refusals import Refusal, Refusals, Refused
from trunkline.adapters.redis.servers import Call, refuse
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import ConfigInvalid, TierUnavailable

log = logging.getLogger(__name__)

SLOTS: Final = 16_384
_CLUSTER_SLOTS: Final = pack((b"CLUSTER", b"SLOTS"))
_ASKING: Final = pack((b"ASKING",))
_IDENTITY_BYTES: Final = 16
_REFRESH_SECONDS: Final = 5.0
_LEAST_PAUSE_SECONDS: Final = 0.2
"""Between two looks at the slots, however often they are said to have moved."""


def slot_of(tag: bytes) -> int:
    """The slot of all keys with this hash tag: CRC16, as XMODEM has it."""
    return crc_hqx(tag, 0) % SLOTS


class Cluster:
    """A `servers.Servers` of several. `seeds` are those that are asked where the slots are."""

    def __init__(
        self,
        seeds: Sequence[Address],
        dialler: Dialler,
        settings: Settings,
        jitter: Callable[[], float],
        refusals: Refusals,
        keys: Keys,
    ) -> None:
        if settings.database:
            raise ConfigInvalid("A Redis Cluster has no logical database but 0.")
        self._seeds = seeds
        self._dialler = dialler
        self._settings = settings
        self._jitter = jitter
        self._refusals = refusals
        self._keys = keys
        self._masters: dict[Address, Connection] = {}
        self._slots: list[Connection] = []
        self._holders: set[Connection] = set()
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        # Who was named last as having a slot: of others the news may not have got about yet.
        self._informed: list[Address] = []
        self._on_connected: Callable[[], None] = lambda: None

    @property
    def identity(self) -> bytes:
        """A hash of those of all masters that have slots; empty until all were reached."""
        names = sorted(server.identity for server in self._holders)
        if not names or not all(names):
            return b""
        return blake2b(b"".join(names), digest_size=_IDENTITY_BYTES).hexdigest().encode()

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """Those of all masters that have slots."""
        return {server.identity: server.seconds for server in self._holders if server.identity}

    def of(self, tag: bytes) -> Connection:
        """The master that has the tag's slot, as far as is known; raises `TierUnavailable`."""
        if not self._slots:
            raise TierUnavailable("No node of the Redis Cluster has answered yet.")
        return self._slots[slot_of(tag)]

    async def call(self, calls: Sequence[Call], seconds: float) -> list[Reply]:
        """One reply for each command, in their order; raises `TierUnavailable`.

        A command whose slot moved is sent once more, to where it is now.
        """
        replies = await self._send(calls, seconds)
        if ReplyError in map(type, replies):
            await self._follow(calls, replies, seconds)
            refuse(replies)
        return replies

    async def call_tagged(
        self, tagged: Sequence[tuple[bytes, bytes]], seconds: float
    ) -> list[Reply]:
        """The same for packed commands with the hash tags of their keys before them."""
        return await self.call([(self.of(tag), command) for tag, command in tagged], seconds)

    async def open(self, on_connected: Callable[[], None]) -> None:
        """Connects to every master; raises `TierUnavailable` where one is away."""
        self._on_connected = on_connected
        self._take(await self._ask(self._seeds))
        try:
            for master in self._masters.values():
                await master.connect()
        except TierUnavailable:
            await self.close()
            raise

    async def run(self) -> None:
        """Keeps connected to all masters, whichever they are, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._tend(group)
                try:
                    async with asyncio.timeout(_REFRESH_SECONDS):
                        await self._moved.wait()
                except TimeoutError:
                    pass  # nobody noticed anything; a look does not hurt
                self._moved.clear()
                try:
                    self._take(await self._ask([*self._informed, *self._masters, *self._seeds]))
                except TierUnavailable as error:
                    log.warning("where the cluster's slots are is not known: %s", error)
                await asyncio.sleep(_LEAST_PAUSE_SECONDS)

    def away(self) -> int:
        """How many masters that have slots are not asked now."""
        return sum(master.away for master in self._holders) if self._holders else 1

    def look_again(self) -> None:
        """Asks soon where the slots are."""
        self._moved.set()

    async def close(self) -> None:
        """Closes all connections."""
        for master in self._masters.values():
            await master.close()

    async def _send(self, calls: Sequence[Call], seconds: float) -> list[Reply]:
        places: dict[Connection, list[int]] = {}
        for place, (server, _) in enumerate(calls):
            places.setdefault(server, []).append(place)
        answers = await asyncio.gather(
            *(
                server.call([calls[place][1] for place in its], seconds)
                for server, its in places.items()
            ),
            return_exceptions=True,
        )
        replies: list[Reply] = [None] * len(calls)
        for its, answer in zip(places.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                self.look_again()  # perhaps another is master now
                raise answer
            for place, reply in zip(its, answer, strict=True):
                replies[place] = reply
        return replies

    async def _follow(self, calls: Sequence[Call], replies: list[Reply], seconds: float) -> None:
        """Repeats, in place, what is elsewhere: moved for good, or on its way (ASK)."""
        for asking in (False, True):
            word = "ASK " if asking else "MOVED "
            places = [
                place
                for place, reply in enumerate(replies)
                if isinstance(reply, ReplyError) and str(reply).startswith(word)
            ]
            elsewhere = [self._named(str(replies[place])) for place in places]
            again: list[Call] = []
            for place, server in zip(places, elsewhere, strict=True):
                again += [(server, _ASKING)] if asking else []
                again.append((server, calls[place][1]))
            answers = await self._send(again, seconds)
            for place, reply in zip(places, answers[1::2] if asking else answers, strict=True):
                replies[place] = reply

    def _named(self, error: str) -> Connection:
        """The server that `MOVED <slot> <host:port>` or `ASK …` names."""
        word, slot, place = error.split(" ")[:3]
        self.look_again()
        server = self._masters.get(Address.parse(place))
        if server is None:
            raise TierUnavailable(f"Slot {slot} is at {place}, which is not connected yet.")
        if word == "MOVED":
            self._slots[int(slot)] = server
            self._holders.add(server)
            self._informed = [server.address]
        return server

    async def _ask(self, addresses: Sequence[Address]) -> Mapping[Address, list[range]]:
        """The masters and their slots, from the first that answers; raises `TierUnavailable`."""
        failure = TierUnavailable("No node of the Redis Cluster is named.")
        for address in addresses:
            try:
                link, _, _ = await self._dialler.dial(address, lambda: Link(10, lambda: None))
                try:
                    async with asyncio.timeout(self._settings.connect_seconds):
                        (rows,) = await link.request([_CLUSTER_SLOTS])
                finally:
                    await link.close()
            except TierUnavailable as error:
                failure = error
                continue
            except (TimeoutError, LinkLost):
                failure = TierUnavailable(f"Redis at {address} does not answer.")
                continue
            if isinstance(rows, ReplyError):
                what = f"Redis at {address} is no node of a cluster: {rows}"
                raise Refused(what, Refusal.OTHER)
            found = _masters_in(rows, address)
            if sum(len(part) for parts in found.values() for part in parts) == SLOTS:
                return found
            failure = TierUnavailable(f"Redis at {address} does not know who has each slot.")
        raise failure

    def _take(self, found: Mapping[Address, list[range]]) -> None:
        """Notes who has which slots; those who are new are connected to by `run`."""
        for address, parts in found.items():
            mark = self._mark_in(parts)
            connection = self._masters.get(address)
            if connection is not None:
                connection.marked_by(mark)
                continue
            connection = Connection(
                address, self._dialler, self._settings, self._jitter, self._refusals, mark
            )
            connection.on_connected = self._on_connected
            connection.on_refused = self.look_again
            self._masters[address] = connection
        slots: list[Connection | None] = [None] * SLOTS
        for address, parts in found.items():
            for part in parts:
                slots[part.start : part.stop] = [self._masters[address]] * len(part)
        self._slots = [server for server in slots if server is not None]
        self._holders = set(self._slots)
        # One that has no slots any more stays as long as it is connected: commands may be under
        # way, and in a failover it often comes back.
        for address, master in list(self._masters.items()):
            if address not in found and master.away:
                if (task := self._tasks.pop(address, None)) is not None:
                    task.cancel()
                self._masters.pop(address).abort()

    def _mark_in(self, parts: Sequence[range]) -> bytes:
        """The key of the mark of whoever has these slots: for all workers the same."""
        for number in count():
            tag, mark = self._keys.life(number)
            if any(slot_of(tag) in part for part in parts):
                return mark
        raise AssertionError

    def _tend(self, group: asyncio.TaskGroup) -> None:
        for address, master in self._masters.items():
            if address not in self._tasks:
                self._tasks[address] = group.create_task(master.run())


def _masters_in(rows: Sequence[Reply], asked: Address) -> Mapping[Address, list[range]]:
    """Each master's slots, from the answer to CLUSTER SLOTS."""
    found: dict[Address, list[range]] = {}
    for first, last, master, *_ in rows:
        host = master[0].decode() if master[0] else asked.host
        found.setdefault(Address(host, master[1]), []).append(range(first, last + 1))
    return found
