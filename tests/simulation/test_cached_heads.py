"""A sync that begins after an ack compares with that entry's head, whatever the cached tier does.

Workers write and compare over a server of the cached tier that shuts them out, is down, is wiped,
or of which some reach another than the rest; every call takes time, some very much. It is judged
by what was acknowledged (I4, DESIGN section 3, step 7).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec
import pytest

from trunkline.adapters.memory.bus import MemoryHub
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.generations import MemoryGenerations
from trunkline.core.appending import ConversationWrite
from trunkline.errors import TierUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Member,
    Seq,
    UserConversation,
    UserId,
    WorkerId,
)
from trunkline.services.comparing import CachedComparison
from trunkline.services.leases import Leases
from trunkline.services.metrics import Metrics
from trunkline.testing.clock import SimulatedClock, StandingClock
from trunkline.testing.delays import DelayedCached, DelayedCachedHeads, DelayedGenerations, Lag
from trunkline.testing.loop import SimulatedLoop

ANN = UserId("ann")
WORKERS = 3
WRITERS = 3
SERVERS = 2
SECONDS = 100.0
CONVERSATIONS = [ConversationId(f"g{number}") for number in range(3)]
SEEDS = range(24)
STALLS = 0.05


Stall = Callable[[], Awaitable[object]]


class Committed:
    """What stands in for the hot store: heads that rise."""

    def __init__(self, story: Story) -> None:
        self._lag = story.lag
        self._stall = story.stall
        self._rows = {
            id_: Conversation(
                ConversationKey(number), id_, ConversationKind.GROUP, b"key", Seq(1), member_count=1
            )
            for number, id_ in enumerate(CONVERSATIONS)
        }

    async def commit(self, id_: ConversationId) -> Conversation:
        await self._lag()
        row = self._rows[id_]
        self._rows[id_] = row = msgspec.structs.replace(row, head=Seq(row.head + 1))
        await self._lag()
        return row

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        await self._lag()
        found = [self._rows[CONVERSATIONS[key]] for key in keys]
        await self._stall()
        return found

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        await self._lag()
        found = {id_: (self._rows[id_], Member(user, Seq(1))) for id_ in ids}
        await self._lag()
        return found

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        await self._lag()
        return [
            UserConversation(row.id, row.key, row.key + 1)
            for row in self._rows.values()
            if row.key + 1 > changed_after
        ]


class Reached:
    """The cached tier and its heads, of whichever server the worker reaches now."""

    def __init__(self, story: Story, worker: WorkerId, stall: Stall) -> None:
        self._stall = stall
        self._servers = []
        for hub in story.hubs:
            hub.open(worker)
            tier = DelayedCached(hub.tier(worker, MemoryCachedTier(story.clock)), story.lag)
            self._servers.append((tier, DelayedCachedHeads(hub.heads(worker), story.lag)))
        self.number = 0

    @property
    def server(self) -> bytes:
        return b"%d %s" % (self.number, self._servers[self.number][1].server)

    @property
    def answers(self) -> bool:
        return self._servers[self.number][1].answers

    @property
    def clocks(self) -> Mapping[bytes, float]:
        found = self._servers[self.number][1].clocks
        return {b"%d %s" % (self.number, name): now for name, now in found.items()}

    async def append(self, writes: Sequence[ConversationWrite], stamp: bytes) -> None:
        tier, _ = self._servers[self.number]
        await self._stall()
        await tier.append(writes, stamp)

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        _, heads = self._servers[self.number]
        await self._stall()
        return await heads.heads(keys, stamp)


class Worker:
    """One of several, as far as cached heads go."""

    def __init__(self, story: Story, name: str) -> None:
        self.id = WorkerId(name)
        self._story = story
        self.metrics = Metrics()
        self._clock = StandingClock(story.loop)
        self.reached = Reached(story, self.id, self.stall)
        self.leases = Leases(
            DelayedGenerations(story.generations, story.lag), self.reached, self._clock,
            story.random.getrandbits, self.metrics, lanes=1,
        )  # fmt: skip
        self._comparison = CachedComparison(
            story.hot,  # type: ignore[arg-type]
            story.hot,
            self.reached,  # type: ignore[arg-type]
            self.reached, self.leases, self.metrics,
            lane_of=lambda _: 0, most_bytes=100_000,
        )  # fmt: skip

    def found_in(self, tier: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "trunkline_cached_heads_total", {"tier": tier}
        )
        return value or 0.0

    async def write(self) -> None:
        id_ = self._story.random.choice(CONVERSATIONS)
        lease = await self.leases.of(0)
        await self.stall()
        row = await self._story.hot.commit(id_)
        await self.stall()
        taken = True
        try:
            await self.reached.append([ConversationWrite.of_head(row)], lease.generation.stamp)
        except TierUnavailable:
            taken = False
        await self.leases.settle(lease, taken=taken)
        self._story.acked[id_] = max(self._story.acked[id_], row.head)

    async def stall(self) -> None:
        """Stands still now and then, half of the times without a clock that shows it."""
        seconds = await self._story.stall()
        self._clock.stood_seconds += self._story.random.choice((0.0, seconds))

    async def sync(self) -> None:
        """What an endpoint is compared with then is no older than what was acknowledged."""
        acked = dict(self._story.acked)
        async with self._comparison.locked(ANN) as listing:
            await self._comparison.refresh(ANN, listing)
            assert all(listing.ends.of(id_) >= seq for id_, seq in acked.items())


class Story:
    def __init__(self, seed: int, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.random = random.Random(f"cached heads {seed}")
        self.lag = Lag(seed)
        self.clock = SimulatedClock(loop)
        self.hubs = [MemoryHub() for _ in range(SERVERS)]
        self.generations = MemoryGenerations()
        self.hot = Committed(self)
        self.acked = dict.fromkeys(CONVERSATIONS, Seq(0))
        self.workers = [Worker(self, f"worker {number}") for number in range(WORKERS)]

    async def tell(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(worker.leases.run()) for worker in self.workers]
            tasks += [
                group.create_task(self._again(worker.write, 0.2))
                for worker in self.workers
                for _ in range(WRITERS)
            ]
            tasks += [group.create_task(self._again(w.sync, 0.05)) for w in self.workers]
            await asyncio.sleep(5.0)
            while self.loop.time() < SECONDS:
                await self._trouble()
            for task in tasks:
                task.cancel()

    async def _again(self, act: object, pause: float) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / pause))
            await act()  # type: ignore[operator]

    async def stall(self) -> float:
        """Takes its time now and then; returns how many seconds."""
        seconds = self.random.uniform(0.0, 6.0) if self.random.random() < STALLS else 0.0
        await asyncio.sleep(seconds)
        return seconds

    async def _trouble(self) -> None:
        worker = self.random.choice(self.workers)
        hub = self.hubs[worker.reached.number]
        match self.random.randrange(6):
            case 0:
                hub.wipe()
            case 1:
                hub.is_down = True
            case 2 | 3:
                worker.reached.number = 1 - worker.reached.number
                if self.random.random() < 0.7:
                    await asyncio.sleep(self.random.expovariate(1.0))
                    for other in self.workers:
                        other.reached.number = worker.reached.number
            case _:
                hub.shuts_out.add(worker.id)
        await asyncio.sleep(self.random.expovariate(1.0))
        hub.is_down = False
        hub.let_in(worker.id)
        await asyncio.sleep(self.random.choice((0.1, 1.0, 4.0)))


def told(seed: int) -> Story:
    loop = SimulatedLoop(seed)
    try:
        story = Story(seed, loop)
        loop.run_until_complete(story.tell())
        assert not loop.faults
        return story
    finally:
        loop.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_before_a_sync_began_is_found_by_it(seed: int) -> None:
    story = told(seed)
    assert min(story.acked.values()) > 10


def test_in_these_stories_heads_are_found_in_both_tiers() -> None:
    workers = [worker for seed in range(4) for worker in told(seed).workers]
    for tier in ("cached", "hot"):
        assert sum(worker.found_in(tier) for worker in workers) > 100
