"""Hub of several workers in one process: inboxes, who watches what, who serves whom, and faults.

For tests and the simulation; it keeps nothing and forgets everything when it is told to.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from trunkline.core.appending import ConversationWrite
from trunkline.errors import TierUnavailable
from trunkline.model import (
    ConversationKey,
    EndpointId,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
    WorkerId,
)
from trunkline.ports.bus import Forgotten
from trunkline.ports.cached import CachedTier


class _Inbox:
    """What waits for one worker; `listening`: whether its subscription is there."""

    def __init__(self) -> None:
        self.packets: deque[bytes | Forgotten | None] = deque()
        self.arrived = asyncio.Event()
        self.listening = True

    def put(self, packet: bytes | Forgotten | None) -> None:
        self.packets.append(packet)
        self.arrived.set()


class MemoryHub:
    """What `MemoryBus`es and `SharedCachedTier`s share.

    Attributes:
        loses: the share of packets that vanish silently.
        lose_next: so many of the next packets vanish, whatever `loses` says.
        delay_seconds: up to so long is a packet under way; one publisher's stay in order.
        is_down: it answers nobody; what was published before still arrives.
        shuts_out: workers whom it does not answer.
        server: its name; another one once it was wiped.
        published: packets taken so far, those that then vanished too.
    """

    def __init__(self, randomness: random.Random | None = None) -> None:
        self._random = randomness or random.Random(0)
        self._inboxes: dict[WorkerId, _Inbox] = {}
        self._watching: dict[ConversationKey, dict[WorkerId, None]] = {}
        self._serving: dict[UserId, dict[WorkerId, None]] = {}
        self._lost: dict[ConversationKey, dict[WorkerId, None]] = {}
        self._last_arrival: dict[tuple[WorkerId, WorkerId], float] = {}
        self.loses = 0.0
        self.lose_next = 0
        self.delay_seconds = 0.0
        self.published = 0
        self._is_down = False
        self.shuts_out: set[WorkerId] = set()
        self._heads: dict[ConversationKey, tuple[bytes, Seq]] = {}
        self._wipes = 0
        self._unregistered: dict[WorkerId, None] = {}

    @property
    def is_down(self) -> bool:
        """Whether it answers nobody."""
        return self._is_down

    @is_down.setter
    def is_down(self, value: bool) -> None:
        self._is_down = value
        if not value:
            for worker in self._unregistered:
                self.inbox(worker).put(None)
            self._unregistered.clear()

    @property
    def server(self) -> bytes:
        """See above."""
        return b"hub %d" % self._wipes

    def is_away(self, worker: WorkerId) -> bool:
        """Whether it does not answer this worker."""
        return self._is_down or worker in self.shuts_out

    def let_in(self, worker: WorkerId) -> None:
        """It answers this worker again, who is told so if it missed anything."""
        self.shuts_out.discard(worker)
        if self._unregistered.pop(worker, self) is None:
            self.inbox(worker).put(None)

    def open(self, worker: WorkerId) -> "MemoryBus":
        """The bus as one worker sees it; its inbox is there from now on."""
        self._inboxes[worker] = _Inbox()
        return MemoryBus(self, worker)

    def heads(self, worker: WorkerId) -> "SharedHeads":
        """The cached heads, as one worker sees them."""
        return SharedHeads(self, worker)

    def tier(self, worker: WorkerId, inner: CachedTier) -> "SharedCachedTier":
        """A cached tier that workers share, as one of them sees it."""
        return SharedCachedTier(self, worker, inner)

    def close(self, worker: WorkerId) -> None:
        """The worker is dead: nobody listens to its inbox any more."""
        self._inboxes.pop(worker, None)

    def cut(self, worker: WorkerId) -> None:
        """The worker's subscription breaks: what is not read yet, and what comes, is lost."""
        inbox = self._inboxes.get(worker)
        if inbox is not None:
            inbox.listening = False
            inbox.packets.clear()

    def mend(self, worker: WorkerId) -> None:
        """The worker's subscription is made anew, and it is told so."""
        inbox = self._inboxes.get(worker)
        if inbox is not None and not inbox.listening:
            inbox.listening = True
            inbox.put(None)

    def wipe(self) -> None:
        """Another server, that knows nobody: every worker is told so."""
        self._watching.clear()
        self._serving.clear()
        self._heads.clear()
        self._wipes += 1
        for inbox in self._inboxes.values():
            inbox.packets.clear()
            inbox.put(None)

    def forget(self, key: ConversationKey) -> None:
        """Loses who watches a conversation, as if its key had been evicted."""
        self._lost[key] = self._watching.pop(key, {})

    def find(self) -> None:
        """Everybody notices what was forgotten of them, is entered again and told so."""
        lost, self._lost = self._lost, {}
        for key, workers in lost.items():
            for worker in workers:
                self.register(worker, key)
                self.inbox(worker).put(Forgotten([key], ()))

    def heal(self) -> None:
        """From now on everything arrives."""
        self.loses = 0.0
        self.lose_next = 0
        self.is_down = False
        for worker in self._inboxes:
            self.let_in(worker)
            self.mend(worker)

    # --- what the adapters below ask --------------------------------------------------------

    def publish(self, sender: WorkerId, receiver: WorkerId, packet: bytes) -> bool:
        """Puts a packet on its way; returns whether somebody listens there."""
        inbox = self._inboxes.get(receiver)
        self.published += 1
        if inbox is None or not inbox.listening:
            return False
        if self.lose_next:
            self.lose_next -= 1
        elif self.loses <= 0 or self._random.random() >= self.loses:
            self._send(sender, receiver, packet)
        return True

    def inbox(self, worker: WorkerId) -> _Inbox:
        """A worker's inbox; that of a dead one is never filled."""
        return self._inboxes.get(worker) or _Inbox()

    def swallow(self, worker: WorkerId) -> None:
        """The worker registered something while nobody answered: it will be told so."""
        self._unregistered[worker] = None

    def register(self, worker: WorkerId, key: ConversationKey) -> None:
        """The worker watches."""
        if worker in self._inboxes:
            self._watching.setdefault(key, {})[worker] = None

    def unregister(self, worker: WorkerId, key: ConversationKey) -> None:
        """The worker watches no more."""
        watching = self._watching.get(key)
        if watching is not None:
            watching.pop(worker, None)
            if not watching:
                del self._watching[key]

    def watching(self, key: ConversationKey, but: WorkerId) -> Collection[WorkerId]:
        """Who else watches."""
        return [worker for worker in self._watching.get(key, ()) if worker != but]

    def take_head(self, key: ConversationKey, head: Seq, stamp: bytes) -> None:
        """A head under a stamp; a lower one changes nothing."""
        _, held = self._heads.get(key, (b"", -1))
        if head > held or (head == held and stamp):
            self._heads[key] = (stamp, head)

    def head(self, key: ConversationKey, stamp: bytes) -> Seq | None:
        """The head that stands under this stamp, if one does."""
        found, head = self._heads.get(key, (b"", Seq(0)))
        return head if found == stamp else None

    def serving(self, user: UserId) -> dict[WorkerId, None]:
        """Which workers serve the user; to be changed in place."""
        return self._serving.setdefault(user, {})

    def _send(self, sender: WorkerId, receiver: WorkerId, packet: bytes) -> None:
        if not self.delay_seconds:
            self._inboxes[receiver].put(packet)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + self._random.uniform(0.0, self.delay_seconds)
        at = max(at, self._last_arrival.get((sender, receiver), 0.0)) + 1e-6
        self._last_arrival[sender, receiver] = at
        loop.call_at(at, self._arrive, receiver, packet)

    def _arrive(self, receiver: WorkerId, packet: bytes) -> None:
        inbox = self._inboxes.get(receiver)
        if inbox is not None and inbox.listening:
            inbox.put(packet)


class MemoryBus:
    """A `ports.bus.Bus` over a hub."""

    def __init__(self, hub: MemoryHub, worker: WorkerId) -> None:
        self._hub = hub
        self._worker = worker

    async def publish(self, packets: Mapping[WorkerId, bytes]) -> Collection[WorkerId]:
        """Returns those whose inbox nobody listens to."""
        if self._hub.is_away(self._worker):
            raise TierUnavailable
        return [
            receiver
            for receiver, packet in packets.items()
            if not self._hub.publish(self._worker, receiver, packet)
        ]

    async def received(self) -> AsyncIterator[bytes | Forgotten | None]:
        """This worker's inbox, without end."""
        inbox = self._hub.inbox(self._worker)
        while True:
            while inbox.packets:
                yield inbox.packets.popleft()
            inbox.arrived.clear()
            await inbox.arrived.wait()

    async def present(self, users: Collection[UserId]) -> None:
        """This worker serves connections of these users."""
        if self._hub.is_away(self._worker):
            self._hub.swallow(self._worker)
            return
        for user in users:
            self._hub.serving(user)[self._worker] = None

    async def absent(self, users: Collection[UserId], worker: WorkerId | None = None) -> None:
        """This worker, or a dead one, serves these users no more."""
        if not self._hub.is_away(self._worker):
            for user in users:
                self._hub.serving(user).pop(worker or self._worker, None)

    async def workers_of(self, users: Collection[UserId]) -> Mapping[UserId, Collection[WorkerId]]:
        """Which other workers serve each of these users."""
        if self._hub.is_away(self._worker):
            raise TierUnavailable
        found = {
            user: [worker for worker in self._hub.serving(user) if worker != self._worker]
            for user in users
        }
        return {user: workers for user, workers in found.items() if workers}


class SharedCachedTier:
    """A `ports.cached.CachedTier` that several workers share, as one of them sees it."""

    def __init__(self, hub: MemoryHub, worker: WorkerId, inner: CachedTier) -> None:
        self._hub = hub
        self._worker = worker
        self._inner = inner

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """Takes over what a batch committed; returns who else watches."""
        if self._hub.is_away(self._worker):
            raise TierUnavailable
        await self._inner.append(writes)
        for write in writes:
            self._hub.take_head(write.conversation.key, write.conversation.head, stamp)
        keys = [write.conversation.key for write in writes]
        found = {key: self._hub.watching(key, self._worker) for key in keys}
        return {key: workers for key, workers in found.items() if workers}

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """See the port."""
        if self._hub.is_away(self._worker):
            return ()
        return await self._inner.read(key, after, up_to_inclusive)

    async def confirm(
        self, moves: Sequence[OffsetMove], members: Mapping[ConversationKey, int]
    ) -> None:
        """See the port."""
        if not self._hub.is_away(self._worker):
            await self._inner.confirm(moves, members)

    async def offsets(
        self, user: UserId, endpoint: EndpointId
    ) -> Mapping[ConversationKey, Seq] | None:
        """See the port."""
        return (
            None if self._hub.is_away(self._worker) else await self._inner.offsets(user, endpoint)
        )

    async def load_offsets(
        self, user: UserId, endpoint: EndpointId, offsets: Mapping[ConversationKey, Seq]
    ) -> None:
        """See the port."""
        if not self._hub.is_away(self._worker):
            await self._inner.load_offsets(user, endpoint, offsets)

    async def evict_idle(self) -> int:
        """See the port."""
        return await self._inner.evict_idle()

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """This worker is named by every append to these conversations."""
        if self._hub.is_away(self._worker):
            self._hub.swallow(self._worker)
            return
        for key in keys:
            self._hub.register(self._worker, key)

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """This worker, or one that is dead, is named no more."""
        if not self._hub.is_away(self._worker):
            for key in keys:
                self._hub.unregister(worker or self._worker, key)


class SharedHeads:
    """A `ports.cached_heads.CachedHeads` of the same, as one worker sees it."""

    def __init__(self, hub: MemoryHub, worker: WorkerId) -> None:
        self._hub = hub
        self._worker = worker

    @property
    def server(self) -> bytes:
        """Another one after a wipe."""
        return self._hub.server

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """The loop's: whatever a worker's own shows, it goes on."""
        return {self._hub.server: asyncio.get_running_loop().time()}

    @property
    def answers(self) -> bool:
        """Whether it answers this worker."""
        return not self._hub.is_away(self._worker)

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        """The heads in the keys' order; None where none stands under this stamp."""
        if self._hub.is_away(self._worker):
            return [None] * len(keys)
        return [self._hub.head(key, stamp) for key in keys]
