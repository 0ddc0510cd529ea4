"""Suite of the cached tier: never a hole, never a stale end, evicted when all have read."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.appending import ConversationWrite
from trunkline.model import ConversationKey, Draft, EndpointId, OffsetMove, Seq, UserId
from trunkline.ports.cached import CachedTier
from trunkline.testing.conformance.clock import SteppedClock
from trunkline.testing.conformance.writer import Writer

TierMaker = Callable[[], AbstractAsyncContextManager[CachedTier]]
"""Opens an empty tier."""

ANN, BOB, CID = UserId("ann"), UserId("bob"), UserId("cid")
PHONE, LAPTOP = EndpointId("phone"), EndpointId("laptop")


class Source:
    """A group of ann and bob in a hot store, whose writes a test hands to the tier."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.hot = MemoryHotStore(SteppedClock())
        self.key = ConversationKey(2**64 - 1)
        self._sent = 0

    async def create(self) -> list[ConversationWrite]:
        """Entry 1."""
        return await self.write(self.writer.create("g", "ann", "c", ["bob"], key=self.key))

    async def send(self, count: int) -> list[ConversationWrite]:
        """The next `count` entries, as one batch."""
        drafts = []
        for _ in range(count):
            self._sent += 1
            drafts.append(self.writer.message("g", "ann", str(self._sent)))
        return await self.write(*drafts)

    async def write(self, *drafts: Draft) -> list[ConversationWrite]:
        """What a batch of drafts does."""
        return (await self.hot.append(drafts, self.writer.decide)).writes

    async def confirm(
        self, tier: CachedTier, moves: Sequence[tuple[UserId, EndpointId, int]], members: int = 2
    ) -> None:
        """Confirms offsets of (user, endpoint, seq)."""
        await tier.confirm(
            [OffsetMove(self.key, user, endpoint, Seq(seq)) for user, endpoint, seq in moves],
            {self.key: members},
        )

    async def seqs(self, tier: CachedTier, after: int, up_to: int) -> list[int]:
        """The seqs that the tier answers with; their content is checked."""
        entries = await tier.read(self.key, Seq(after), Seq(up_to))
        if entries:
            from_hot = await self.hot.read(self.key, Seq(entries[0].seq - 1), Seq(up_to))
            assert list(entries) == list(from_hot)
        return [entry.seq for entry in entries]


class CachedTierSuite:
    """Promises of `ports.cached.CachedTier`. Fixtures: `make_tier`, `writer`."""

    async def test_any_part_of_what_was_appended_is_read(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I2, I8."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.send(3))
            await tier.append(await source.send(2))
            for after in range(7):
                for up_to in range(after, 7):
                    expected = list(range(after + 1, up_to + 1))
                    assert await source.seqs(tier, after, up_to) == expected

    async def test_a_range_that_ends_past_the_cached_head_is_not_answered_short(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I8: the tier may be behind; a part without its end would look whole."""
        source = Source(writer)
        async with make_tier() as tier:
            assert await source.seqs(tier, 0, 5) == []
            await tier.append(await source.create())
            await source.send(3)
            assert await source.seqs(tier, 0, 4) == []
            assert await source.seqs(tier, 0, 1) == [1]

    async def test_a_tier_that_starts_in_the_middle_answers_the_end_of_a_range(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """What is missing is missing at the front."""
        source = Source(writer)
        await source.create()
        await source.send(5)
        async with make_tier() as tier:
            await tier.append(await source.send(3))
            assert await source.seqs(tier, 0, 9) == [7, 8, 9]
            assert await source.seqs(tier, 7, 8) == [8]
            assert await source.seqs(tier, 0, 6) == []

    async def test_what_is_at_or_below_the_cached_head_is_ignored(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I2: batches may come twice and late."""
        source = Source(writer)
        async with make_tier() as tier:
            first, second = await source.create(), await source.send(3)
            for writes in (first, second, first, second):
                await tier.append(writes)
            assert await source.seqs(tier, 0, 4) == [1, 2, 3, 4]

    async def test_after_a_gap_only_what_comes_behind_it_is_answered(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I1: entries are dropped, the head only rises."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            lost = await source.send(2)
            await tier.append(await source.send(2))
            assert await source.seqs(tier, 0, 5) == []
            await tier.append(lost)
            assert await source.seqs(tier, 0, 3) == []
            await tier.append(await source.send(2))
            assert await source.seqs(tier, 0, 7) == [6, 7]

    async def test_what_all_members_hold_is_evicted_and_nothing_else(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """DESIGN section 5."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.send(9))
            await source.confirm(tier, [(ANN, PHONE, 10)])
            assert await source.seqs(tier, 0, 10) == list(range(1, 11))
            await source.confirm(tier, [(BOB, PHONE, 4)])
            assert await source.seqs(tier, 0, 10) == list(range(5, 11))
            for seq in range(5, 11):
                await source.confirm(tier, [(BOB, PHONE, seq)])
                assert await source.seqs(tier, 0, 10) == list(range(seq + 1, 11))
            await tier.append(await source.send(1))
            assert await source.seqs(tier, 0, 11) == [11]

    async def test_a_member_that_never_confirmed_keeps_everything(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """Two of three members are not all."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.write(writer.join("g", "ann", "j", ["cid"])))
            await source.confirm(tier, [(ANN, PHONE, 2), (BOB, PHONE, 2)], members=3)
            assert await source.seqs(tier, 0, 2) == [1, 2]
            await source.confirm(tier, [(CID, PHONE, 2)], members=3)
            assert await source.seqs(tier, 0, 2) == []

    async def test_a_members_offset_is_the_highest_of_its_endpoints(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """Endpoints of one member are not members."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.send(4))
            await source.confirm(tier, [(ANN, PHONE, 3), (ANN, LAPTOP, 1)])
            assert await source.seqs(tier, 0, 5) == [1, 2, 3, 4, 5]
            await source.confirm(tier, [(BOB, PHONE, 2), (BOB, LAPTOP, 4)])
            assert await source.seqs(tier, 0, 5) == [4, 5]

    async def test_who_left_holds_nothing_back(self, make_tier: TierMaker, writer: Writer) -> None:
        """Only present members count."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.send(2))
            await source.confirm(tier, [(BOB, PHONE, 1), (ANN, PHONE, 2)])
            await tier.append(await source.write(writer.leave("g", "bob", "l")))
            await source.confirm(tier, [(ANN, PHONE, 4)], members=1)
            assert await source.seqs(tier, 0, 4) == []

    async def test_a_newcomer_holds_back_from_where_it_is(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """Also when all others had gone further before it came."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            await tier.append(await source.write(writer.join("g", "ann", "j", ["cid"])))
            await tier.append(await source.send(8))
            await source.confirm(tier, [(ANN, PHONE, 10), (BOB, PHONE, 8)], members=3)
            await source.confirm(tier, [(CID, PHONE, 3)], members=3)
            assert await source.seqs(tier, 0, 10) == list(range(4, 11))
            await source.confirm(tier, [(CID, PHONE, 9)], members=3)
            assert await source.seqs(tier, 0, 10) == [9, 10]

    async def test_read_offsets_only_move_forward(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I9."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.load_offsets(ANN, PHONE, {})
            await tier.append(await source.create())
            await tier.append(await source.send(4))
            for seq in (3, 1, 2):
                await source.confirm(tier, [(ANN, PHONE, seq)])
            assert await tier.offsets(ANN, PHONE) == {source.key: 3}

    async def test_offsets_are_unknown_until_the_hot_tiers_were_filled_in(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """A confirmation alone does not make an endpoint's offsets whole."""
        source = Source(writer)
        elsewhere = ConversationKey(7)
        async with make_tier() as tier:
            assert await tier.offsets(ANN, PHONE) is None
            await source.confirm(tier, [(ANN, PHONE, 5)])
            assert await tier.offsets(ANN, PHONE) is None
            await tier.load_offsets(ANN, PHONE, {source.key: Seq(4), elsewhere: Seq(9)})
            assert await tier.offsets(ANN, PHONE) == {source.key: 5, elsewhere: 9}
            assert await tier.offsets(ANN, LAPTOP) is None
            assert await tier.offsets(BOB, PHONE) is None

    async def test_offsets_past_the_cached_head_evict_no_more_than_is_there(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I2: members may hold, from the hot tier, what the cached tier gets late."""
        source = Source(writer)
        async with make_tier() as tier:
            await tier.append(await source.create())
            late = await source.send(2)
            await source.confirm(tier, [(ANN, PHONE, 3), (BOB, PHONE, 3)])
            assert await source.seqs(tier, 0, 1) == []
            await tier.append(late)
            await tier.append(await source.send(2))
            assert await source.seqs(tier, 0, 5) in ([2, 3, 4, 5], [4, 5])

    async def test_offsets_of_several_endpoints_in_one_call_stay_apart(
        self, make_tier: TierMaker, writer: Writer
    ) -> None:
        """I9: each endpoint holds what it confirmed itself."""
        source = Source(writer)
        async with make_tier() as tier:
            for user, endpoint in [(ANN, PHONE), (ANN, LAPTOP), (BOB, LAPTOP)]:
                await tier.load_offsets(user, endpoint, {})
            await tier.append(await source.create())
            await tier.append(await source.send(4))
            await source.confirm(
                tier, [(ANN, PHONE, 3), (ANN, LAPTOP, 1), (BOB, LAPTOP, 2), (ANN, PHONE, 4)]
            )
            assert await tier.offsets(ANN, PHONE) == {source.key: 4}
            assert await tier.offsets(ANN, LAPTOP) == {source.key: 1}
            assert await tier.offsets(BOB, LAPTOP) == {source.key: 2}
