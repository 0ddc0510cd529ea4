"""Stores that answer late: every call waits before and after, so that calls overtake one another.

The memory stores answer at once; real ones do not. Between a commit and what follows it
anything may happen, and does here.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

from trunkline.core.appending import ConversationWrite, Decision
from trunkline.core.generations import Generation
from trunkline.errors import TierUnavailable
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
    WorkerId,
)
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.ports.cold import ColdStore
from trunkline.ports.generations import Generations
from trunkline.ports.heads import Heads
from trunkline.ports.hot import Decide, HotStore
from trunkline.ports.tasks import ArchiveTask, TaskStore, Waiting


class Lag:
    """How late: most calls by a turn of the loop or two, some by milliseconds, a few by more.

    With some seeds all of it is ten times as slow.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"lag {seed}")
        self._scale = self._random.choice((0.004, 0.004, 0.04))

    async def __call__(self) -> None:
        """Waits."""
        draw = self._random.random()
        if draw < 0.5:
            return
        late = self._scale * (draw - 0.8) / (1.005 - draw)
        await asyncio.sleep(max(0.0, late))


class DelayedHot:
    """A `HotStore` whose calls take time."""

    def __init__(self, inner: HotStore, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """See the port."""
        await self._lag()
        decision = await self._inner.append(batch, decide, wait=wait)
        await self._lag()
        return decision

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """See the port."""
        await self._lag()
        answer = await self._inner.views(user, ids)
        await self._lag()
        return answer

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """See the port."""
        await self._lag()
        answer = await self._inner.members(key)
        await self._lag()
        return answer

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """See the port."""
        await self._lag()
        answer = await self._inner.read(key, after, up_to_inclusive)
        await self._lag()
        return answer

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """See the port."""
        await self._lag()
        answer = await self._inner.conversations_of(user, changed_after=changed_after)
        await self._lag()
        return answer

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.record(markers, offsets)
        await self._lag()

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """See the port."""
        await self._lag()
        answer = await self._inner.offsets(user, endpoint)
        await self._lag()
        return answer

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.trim(trims)
        await self._lag()


class DelayedHeads:
    """`Heads` whose calls take time."""

    def __init__(self, inner: Heads, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        """See the port."""
        await self._lag()
        answer = await self._inner.rows(keys)
        await self._lag()
        return answer


class DelayedCachedHeads:
    """`CachedHeads` whose calls take time."""

    def __init__(self, inner: CachedHeads, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    @property
    def server(self) -> bytes:
        """See the port."""
        return self._inner.server

    @property
    def answers(self) -> bool:
        """See the port."""
        return self._inner.answers

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """See the port."""
        return self._inner.clocks

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        """See the port."""
        await self._lag()
        answer = await self._inner.heads(keys, stamp)
        await self._lag()
        return answer


class DelayedGenerations:
    """`Generations` whose calls take time."""

    def __init__(self, inner: Generations, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    async def current(self, lane: int) -> Generation:
        """See the port."""
        await self._lag()
        answer = await self._inner.current(lane)
        await self._lag()
        return answer

    async def replace(self, lane: int, old: Generation, new: Generation) -> bool:
        """See the port."""
        await self._lag()
        answer = await self._inner.replace(lane, old, new)
        await self._lag()
        return answer


class DelayedBus:
    """A `Bus` whose calls take time."""

    def __init__(self, inner: Bus, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag
        self.received = inner.received

    async def publish(self, packets: Mapping[WorkerId, bytes]) -> Collection[WorkerId]:
        """See the port."""
        await self._lag()
        answer = await self._inner.publish(packets)
        await self._lag()
        return answer

    async def present(self, users: Collection[UserId]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.present(users)
        await self._lag()

    async def absent(self, users: Collection[UserId], worker: WorkerId | None = None) -> None:
        """See the port."""
        await self._lag()
        await self._inner.absent(users, worker)
        await self._lag()

    async def workers_of(self, users: Collection[UserId]) -> Mapping[UserId, Collection[WorkerId]]:
        """See the port."""
        await self._lag()
        answer = await self._inner.workers_of(users)
        await self._lag()
        return answer


class DelayedTasks:
    """A `TaskStore` whose calls take time."""

    def __init__(self, inner: TaskStore, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        """See the port."""
        tasks = await self._inner.lease(limit, lease_seconds)
        await self._lag()
        return tasks

    async def archived(self, progress: Sequence[tuple[ArchiveTask, Seq]]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.archived(progress)

    async def done(self, tasks: Sequence[ArchiveTask]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.done(tasks)

    async def failed(self, task: ArchiveTask, code: str, again_after_seconds: float) -> None:
        """See the port."""
        await self._lag()
        await self._inner.failed(task, code, again_after_seconds)

    async def give_back(self, tasks: Sequence[ArchiveTask]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.give_back(tasks)

    async def waiting(self) -> Waiting:
        """See the port."""
        return await self._inner.waiting()


class DelayedCold:
    """A `ColdStore` whose calls take time, and that does not answer while it is down."""

    def __init__(self, inner: ColdStore, lag: Lag, is_down: Callable[[], bool]) -> None:
        self._inner = inner
        self._lag = lag
        self._is_down = is_down

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """See the port."""
        await self._ready()
        await self._inner.put(segments, metadata)
        await self._ready()

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[Segment]:
        """See the port."""
        await self._ready()
        answer = await self._inner.read(key, after, up_to_inclusive)
        await self._ready()
        return answer

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """See the port."""
        await self._ready()
        return await self._inner.metadata(key)

    def keys(self) -> AsyncIterator[ConversationKey]:
        """See the port."""
        return self._inner.keys()

    async def _ready(self) -> None:
        await self._lag()
        if self._is_down():
            raise TierUnavailable


class DelayedCached:
    """A `CachedTier` whose calls take time, as those of one in another process do."""

    def __init__(self, inner: CachedTier, lag: Lag) -> None:
        self._inner = inner
        self._lag = lag

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """See the port."""
        await self._lag()
        answer = await self._inner.append(writes, stamp)
        await self._lag()
        return answer

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """See the port."""
        await self._lag()
        answer = await self._inner.read(key, after, up_to_inclusive)
        await self._lag()
        return answer

    async def confirm(
        self, moves: Sequence[OffsetMove], members: Mapping[ConversationKey, int]
    ) -> None:
        """See the port."""
        await self._lag()
        await self._inner.confirm(moves, members)
        await self._lag()

    async def offsets(
        self, user: UserId, endpoint: EndpointId
    ) -> Mapping[ConversationKey, Seq] | None:
        """See the port."""
        await self._lag()
        answer = await self._inner.offsets(user, endpoint)
        await self._lag()
        return answer

    async def load_offsets(
        self, user: UserId, endpoint: EndpointId, offsets: Mapping[ConversationKey, Seq]
    ) -> None:
        """See the port."""
        await self._lag()
        await self._inner.load_offsets(user, endpoint, offsets)

    async def evict_idle(self) -> int:
        """See the port."""
        await self._lag()
        return await self._inner.evict_idle()

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """See the port."""
        await self._lag()
        await self._inner.watch(keys)
        await self._lag()

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """See the port."""
        await self._lag()
        await self._inner.unwatch(keys, worker)
        await self._lag()
