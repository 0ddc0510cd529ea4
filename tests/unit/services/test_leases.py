"""What may be believed of the cached heads, and when a commit may be acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence

import msgspec
import pytest
from two_workers import ANN, BEN, GROUP, A, B, Pair, Peer, tell, until

from trunkline.adapters.memory.bus import MemoryHub
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.generations import MemoryGenerations
from trunkline.core.appending import ConversationWrite
from trunkline.core.generations import Generation
from trunkline.errors import DataDamaged, OutcomeUnknown, StorageUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Member,
    Seq,
    UserConversation,
    UserId,
)
from trunkline.ports.cached_heads import CachedHeads
from trunkline.services.comparing import CachedComparison
from trunkline.services.leases import LEASE_SECONDS, Leases
from trunkline.services.metrics import Metrics
from trunkline.testing.clock import StandingClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.wire.frames import Sync, Synced

OPENED_SECONDS = 4.0
EVER = 2**40
"""A cursor beyond all changes of the list: only heads are compared."""


async def ahead(peer: Peer, held: int) -> list[int]:
    """The head of the group, if it has something new for an endpoint that holds so much."""
    before = len(peer.of(Synced))
    peer.send(Sync(before + 1, EVER, vector={GROUP: Seq(held)}))
    await until(lambda: len(peer.of(Synced)) > before)
    answer = peer.of(Synced)[-1]
    assert isinstance(answer, Synced)
    return [changed.head for changed in answer.conversations]


async def opened(pair: Pair) -> Generation:
    await asyncio.sleep(OPENED_SECONDS)
    generation = await pair.generations.current(0)
    assert generation.open
    return generation


def compared(pair: Pair, tier: str) -> float:
    return pair.count(B, "trunkline_cached_heads_total", tier=tier)


def seconds_of(pair: Pair) -> float:
    return pair.clock.monotonic()


# --- over two whole workers -----------------------------------------------------------------


def test_a_sync_compares_with_cached_heads_once_they_may_be_believed() -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create(BEN)
        assert await ahead(ben, 0) == [1]
        await opened(pair)
        assert await ahead(ben, 0) == [1]
        from_hot, from_cached = compared(pair, "hot"), compared(pair, "cached")
        for number in range(3):
            await ann.say(str(number))
            assert await ahead(ben, 1 + number) == [2 + number]
            assert await ahead(ben, 2 + number) == []
        assert compared(pair, "hot") == from_hot
        assert compared(pair, "cached") == from_cached + 6

    tell(story)


def test_what_the_tier_did_not_take_over_is_acknowledged_once_no_older_head_is_believed() -> None:
    """The other worker still reaches the tier, and finds the head from before there."""

    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create(BEN)
        before = await opened(pair)
        await ahead(ben, 1)
        from_cached = compared(pair, "cached")
        assert await ahead(ben, 1) == []
        assert compared(pair, "cached") == from_cached + 1
        pair.hub.shuts_out.add(A)
        began = seconds_of(pair)
        await ann.say("not taken over")
        assert seconds_of(pair) - began > LEASE_SECONDS
        assert await ahead(ben, 1) == [2]
        assert (await pair.generations.current(0)).id != before.id
        began = seconds_of(pair)
        await ann.say("nor this")
        assert seconds_of(pair) - began < LEASE_SECONDS / 2
        assert await ahead(ben, 2) == [3]

    tell(story)


def test_it_is_opened_again_after_a_pause_that_grows_while_it_does_not_last() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        pauses = []
        for number in range(4):
            await opened_again(pair)
            pair.hub.shuts_out.add(A)
            await ann.say(str(number))
            pair.hub.let_in(A)
            began = seconds_of(pair)
            await opened_again(pair)
            pauses.append(seconds_of(pair) - began)
        assert pauses == sorted(pauses)
        assert pauses[-1] > 3 * pauses[0]

    async def opened_again(pair: Pair) -> None:
        while not (await pair.generations.current(0)).open:
            await asyncio.sleep(0.05)

    tell(story)


def test_a_server_that_was_wiped_is_not_believed_until_it_is_bound_anew() -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create(BEN)
        first = await opened(pair)
        pair.hub.wipe()
        await ann.say("one")
        assert await ahead(ben, 1) == [2]
        second = await opened(pair)
        assert (second.id, second.server) != (first.id, first.server)
        from_hot = compared(pair, "hot")
        assert await ahead(ben, 1) == [2]  # loaded
        assert await ahead(ben, 1) == [2]
        assert compared(pair, "hot") == from_hot + 1

    tell(story)


# --- the leases by themselves ----------------------------------------------------------------


class FailingGenerations(MemoryGenerations):
    fails = False

    async def current(self, lane: int) -> Generation:
        if self.fails:
            raise StorageUnavailable
        return await super().current(lane)


class Alone:
    """The leases of one worker, on a hub and generations that the test breaks."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.clock = StandingClock(loop)
        self.hub = MemoryHub()
        self.hub.open(A)
        self.generations = FailingGenerations()
        self.leases = Leases(
            self.generations, self.hub.heads(A), self.clock, random.Random(1).getrandbits,
            Metrics(), lanes=1,
        )  # fmt: skip

    async def stand(self, seconds: float) -> None:
        """The machine is frozen, and its clock does not show it."""
        await asyncio.sleep(seconds)
        self.clock.stood_seconds += seconds

    async def open(self) -> None:
        async with asyncio.TaskGroup() as group:
            tending = group.create_task(self.leases.run())
            await asyncio.sleep(OPENED_SECONDS)
            tending.cancel()


@pytest.fixture
def loop() -> SimulatedLoop:
    return SimulatedLoop(1)


def test_a_lease_that_ended_holds_on_only_if_nothing_changed(loop: SimulatedLoop) -> None:
    async def story() -> None:
        alone = Alone(loop)
        await alone.open()
        lease = await alone.leases.of(0)
        assert alone.leases.believes(lease)
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert await alone.leases.still(lease)
        closed = Generation.closed(1)
        assert await alone.generations.replace(0, lease.generation, closed)
        # Until the lease that was just renewed ends, and no longer.
        assert await alone.leases.still(lease)
        await asyncio.sleep(1.01 * LEASE_SECONDS)
        assert not await alone.leases.still(lease)
        assert not alone.leases.believes(await alone.leases.of(0))

    loop.run_until_complete(story())
    loop.close()


def test_a_lease_is_over_after_a_pause_that_the_own_clock_does_not_show(
    loop: SimulatedLoop,
) -> None:
    """A frozen guest: what was read after it may be what others had waited out long ago."""

    async def story() -> None:
        alone = Alone(loop)
        await alone.open()
        lease = await alone.leases.of(0)
        assert await alone.leases.still(lease)
        await alone.generations.replace(0, lease.generation, Generation.closed(1))
        await alone.stand(5 * LEASE_SECONDS)
        assert alone.clock.monotonic() < lease.until
        assert not await alone.leases.still(lease)

    loop.run_until_complete(story())
    loop.close()


def test_after_such_a_pause_nothing_is_acknowledged_without_the_tier_by_what_was_known_before(
    loop: SimulatedLoop,
) -> None:
    """While this worker stood still, the others began to believe the tier, which it does not
    reach: its commit is acknowledged once they do no more."""

    async def story() -> None:
        alone = Alone(loop)
        await asyncio.sleep(2 * LEASE_SECONDS)
        closed = (await alone.leases.of(0)).generation
        assert not closed.server
        await asyncio.sleep(2 * LEASE_SECONDS)
        lease = await alone.leases.of(0)
        await alone.leases.settle(lease, taken=False)
        opened = closed.bound(alone.hub.server).opened()
        assert await alone.generations.replace(0, closed, opened)
        alone.hub.shuts_out.add(A)
        await alone.stand(5 * LEASE_SECONDS)
        began = loop.time()
        await alone.leases.settle(lease, taken=False)
        assert not (await alone.generations.current(0)).open
        assert loop.time() - began > LEASE_SECONDS

    loop.run_until_complete(story())
    loop.close()


def test_while_the_hot_store_is_away_nothing_is_acknowledged(loop: SimulatedLoop) -> None:
    """Whether older heads are believed elsewhere cannot be found out then."""

    async def story() -> None:
        alone = Alone(loop)
        await alone.open()
        lease = await alone.leases.of(0)
        alone.generations.fails = True
        with pytest.raises(OutcomeUnknown):
            await alone.leases.settle(lease, taken=False)
        alone.generations.fails = False
        await alone.leases.settle(lease, taken=False)
        assert not (await alone.generations.current(0)).server

    loop.run_until_complete(story())
    loop.close()


def test_another_server_is_not_believed_before_anybody_noticed(loop: SimulatedLoop) -> None:
    """One that was restored from a snapshot holds heads under the stamp that still stands."""

    async def story() -> None:
        alone = Alone(loop)
        await alone.open()
        lease = await alone.leases.of(0)
        assert alone.leases.believes(lease)
        alone.hub.wipe()
        assert (await alone.generations.current(0)).open
        assert not alone.leases.believes(lease)

    loop.run_until_complete(story())
    loop.close()


class OneGroup:
    """A hot store with one conversation, of which only the head is asked."""

    def __init__(self) -> None:
        self.row = Conversation(
            ConversationKey(1), GROUP, ConversationKind.GROUP, b"key", Seq(1), member_count=1
        )

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        return [self.row]

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        return {id_: (self.row, Member(user, Seq(1))) for id_ in ids}

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        return [UserConversation(GROUP, self.row.key, 1)]


class SlowHeads:
    """Cached heads whose answer takes longer than a lease lasts."""

    def __init__(self, inner: CachedHeads) -> None:
        self._inner = inner
        self.server = inner.server
        self.answers = True

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        answer = await self._inner.heads(keys, stamp)
        await asyncio.sleep(2 * LEASE_SECONDS)
        return answer


def test_heads_that_took_longer_than_their_lease_are_looked_at_again(loop: SimulatedLoop) -> None:
    async def story() -> None:
        alone, hot, metrics = Alone(loop), OneGroup(), Metrics()
        await alone.open()
        lease = await alone.leases.of(0)
        tier = alone.hub.tier(A, MemoryCachedTier(alone.clock))
        await tier.append([ConversationWrite.of_head(hot.row)], lease.generation.stamp)
        comparison = CachedComparison(
            hot, hot, tier, SlowHeads(alone.hub.heads(A)),  # type: ignore[arg-type]
            alone.leases, metrics, lane_of=lambda _: 0, most_bytes=10_000,
        )  # fmt: skip

        async def end_of_view() -> Seq:
            async with comparison.locked(ANN) as listing:
                await comparison.refresh(ANN, listing)
                return listing.ends.of(GROUP)

        assert await end_of_view() == 1
        async with asyncio.TaskGroup() as group:
            comparing = group.create_task(end_of_view())
            await asyncio.sleep(0.1)
            await alone.generations.replace(0, lease.generation, Generation.closed(1))
            hot.row = msgspec.structs.replace(hot.row, head=Seq(2))
        assert comparing.result() == 2

    loop.run_until_complete(story())
    loop.close()


@pytest.mark.parametrize(
    "generation",
    [
        Generation.closed(0),
        Generation.closed(2**64 - 1),
        Generation.closed(5).bound(b"O"),
        Generation.closed(5).bound(b"server").opened(),
    ],
)
def test_a_generation_is_read_as_it_was_stored(generation: Generation) -> None:
    assert Generation.decode(generation.encode()) == generation
    assert bool(generation.stamp) == generation.open


@pytest.mark.parametrize("data", [b"", b"O", b"X0123456789abcdef", b"O0123"])
def test_what_is_no_generation_is_damage(data: bytes) -> None:
    with pytest.raises(DataDamaged):
        Generation.decode(data)
