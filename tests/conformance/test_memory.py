"""The memory adapters keep the promises of their ports, over a journal that forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from trunkline.adapters.memory.cached import CachedSettings, EvictionCause, MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore, MemoryTaskStore
from trunkline.errors import OutcomeUnknown, StorageFull, StorageUnavailable
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq, UserId
from trunkline.testing.conformance import (
    ArchivingSuite,
    CachedTierSuite,
    ColdStoreSuite,
    HeadsSuite,
    HotStoreSuite,
    MembershipSuite,
    ResendingSuite,
    SteppedClock,
    TaskStoreSuite,
    TierMaker,
    Writer,
)
from trunkline.testing.conformance.cached import Source
from trunkline.testing.conformance.writer import check_view, known_seq_of, read_all, seq_of, view


class ForgetfulJournal:
    """A journal on a disk whose power may go: what was not synced is gone then."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._synced = 0
        self.failures: list[Exception] = []
        self.full = False
        self.gate = asyncio.Event()
        self.gate.set()

    def append(self, record: bytes) -> None:
        if self.full:
            raise StorageFull
        self._records.append(record)

    async def sync(self) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        self._synced = len(self._records)

    def records(self) -> Sequence[bytes]:
        return list(self._records)

    def after_a_power_cut(self) -> ForgetfulJournal:
        other = ForgetfulJournal()
        other._records = self._records[: self._synced]
        other._synced = self._synced
        return other


@dataclass
class MemoryStores:
    hot: MemoryHotStore
    tasks: MemoryTaskStore
    cold: MemoryColdStore


class MemoryMaker:
    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.hot_journal = ForgetfulJournal()
        self.cold_journal = ForgetfulJournal()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[MemoryStores]:
        hot = MemoryHotStore(self.clock, self.hot_journal)
        yield MemoryStores(hot, hot.tasks, MemoryColdStore(self.cold_journal))

    async def crash(self) -> None:
        self.hot_journal = self.hot_journal.after_a_power_cut()
        self.cold_journal = self.cold_journal.after_a_power_cut()


@pytest.fixture
def make_store() -> MemoryMaker:
    return MemoryMaker()


@pytest.fixture
def make_tier() -> TierMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[MemoryCachedTier]:
        yield MemoryCachedTier(SteppedClock())

    return make


class TestHotStore(HotStoreSuite): ...


class TestHeads(HeadsSuite): ...


class TestMembership(MembershipSuite): ...


class TestResending(ResendingSuite): ...


class TestTaskStore(TaskStoreSuite): ...


class TestArchiving(ArchivingSuite): ...


class TestColdStore(ColdStoreSuite): ...


class TestCachedTier(CachedTierSuite): ...


# --- the journal ------------------------------------------------------------------------


async def test_nothing_is_shown_before_it_is_on_disk(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """I5."""
    async with make_store() as stores, asyncio.TaskGroup() as group:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        make_store.hot_journal.gate.clear()
        sending = group.create_task(writer.append(stores.hot, writer.message("g", "ann", "m")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (await view(stores.hot, "ann", "g"))[0].head == 1
        assert not sending.done()
        make_store.hot_journal.gate.set()
        assert seq_of((await sending)[0]) == 2
        assert (await view(stores.hot, "ann", "g"))[0].head == 2


async def test_an_append_whose_sync_failed_is_settled_by_its_resend(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """I2, I6: its record stands in the journal, so its seq is never given to another."""
    async with make_store() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        make_store.hot_journal.failures.append(StorageUnavailable())
        with pytest.raises(OutcomeUnknown):
            await writer.append(stores.hot, writer.message("g", "ann", "m", "lost answer"))
        other, again = await writer.append(
            stores.hot, writer.message("g", "ann", "n"), writer.message("g", "ann", "m")
        )
        assert (seq_of(other), known_seq_of(again)) == (3, 2)
        before = await check_view(writer, stores.hot, "ann", "g")
        await make_store.crash()
    async with make_store() as stores:
        assert await check_view(writer, stores.hot, "ann", "g") == before


async def test_an_append_that_was_cancelled_in_its_sync_leaves_no_second_content(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """I2."""
    async with make_store() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        make_store.hot_journal.gate.clear()
        sending = asyncio.ensure_future(writer.append(stores.hot, writer.message("g", "ann", "m")))
        for _ in range(5):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        make_store.hot_journal.gate.set()
        assert seq_of((await writer.append(stores.hot, writer.message("g", "ann", "n")))[0]) == 3
        before = await check_view(writer, stores.hot, "ann", "g")
        await make_store.crash()
    async with make_store() as stores:
        assert await check_view(writer, stores.hot, "ann", "g") == before


async def test_what_was_never_synced_is_gone_after_a_power_cut(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """I3: and its seq is free, for nobody has seen it."""
    async with make_store() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        make_store.hot_journal.failures.append(StorageUnavailable())
        with pytest.raises(OutcomeUnknown):
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
        await make_store.crash()
    async with make_store() as stores:
        assert seq_of((await writer.append(stores.hot, writer.message("g", "ann", "n")))[0]) == 2


async def test_a_full_disk_refuses_writes_and_recovers_by_itself(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """DESIGN section 10."""
    async with make_store() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        make_store.hot_journal.full = True
        with pytest.raises(StorageFull):
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
        make_store.hot_journal.full = False
        assert seq_of((await writer.append(stores.hot, writer.message("g", "ann", "m")))[0]) == 2


async def test_no_body_stands_in_the_journal_in_plaintext(
    make_store: MemoryMaker, writer: Writer
) -> None:
    """I12."""
    async with make_store() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c", name="Geheimbund"))
        await writer.append(stores.hot, writer.message("g", "ann", "m", "streng geheim"))
    everything = b"".join(make_store.hot_journal.records())
    assert b"ann" in everything
    assert b"geheim" not in everything
    assert b"Geheimbund" not in everything


async def test_without_a_journal_the_stores_serve_the_same(writer: Writer) -> None:
    """For tests that need no crash."""
    hot = MemoryHotStore(SteppedClock())
    await writer.append(hot, writer.create("g", "ann", "c"), writer.message("g", "ann", "m"))
    row, _ = await view(hot, "ann", "g")
    assert len(await read_all(hot, row)) == 2


# --- what the cached tier lets go, and why ------------------------------------------------


async def test_a_long_conversation_is_cut_to_its_newest(writer: Writer) -> None:
    """A group where someone never reads is bounded by length."""
    source = Source(writer)
    tier = MemoryCachedTier(SteppedClock(), CachedSettings(conversation_entries=16))
    await tier.append(await source.create())
    await source.confirm(tier, [(UserId("bob"), EndpointId("phone"), 1)])
    for _ in range(10):
        await tier.append(await source.send(5))
        assert tier.entry_count <= 18 + 5
    assert await source.seqs(tier, 0, 51) == list(range(52 - tier.entry_count, 52))
    assert tier.evicted[EvictionCause.LENGTH] == 51 - tier.entry_count
    await source.confirm(tier, [(UserId("ann"), EndpointId("phone"), 51)])
    assert await source.seqs(tier, 0, 51)
    await source.confirm(tier, [(UserId("bob"), EndpointId("phone"), 51)])
    assert tier.entry_count == 0


async def test_all_conversations_together_are_bounded_the_idlest_going_first(
    writer: Writer,
) -> None:
    """Memory has a bound, whatever the users do."""
    hot = MemoryHotStore(SteppedClock())
    tier = MemoryCachedTier(SteppedClock(), CachedSettings(entries=10))
    for name in "abcdef":
        drafts = [writer.create(name, "ann", "c"), *(writer.message(name, "ann", i) for i in "12")]
        await tier.append((await hot.append(drafts, writer.decide)).writes)
    assert (tier.entry_count, tier.conversation_count) == (9, 3)
    assert tier.evicted[EvictionCause.SPACE] == 9
    row, _ = await view(hot, "ann", "a")
    assert list(await tier.read(row.key, Seq(0), Seq(3))) == []
    again = await hot.append([writer.message("a", "ann", "3")], writer.decide)
    await tier.append(again.writes)
    assert [e.seq for e in await tier.read(row.key, Seq(0), Seq(4))] == [4]


async def test_what_was_idle_past_its_time_is_dropped(writer: Writer) -> None:
    """Conversations by their last write, endpoints by their last confirmation or question."""
    clock = SteppedClock()
    source = Source(writer)
    tier = MemoryCachedTier(clock, CachedSettings(idle_seconds=60.0))
    ann, phone = UserId("ann"), EndpointId("phone")
    await tier.append(await source.create())
    await tier.load_offsets(ann, phone, {source.key: Seq(1)})
    clock.advance(59.0)
    assert await tier.evict_idle() == 0
    assert await tier.offsets(ann, phone) == {source.key: 1}
    clock.advance(2.0)
    assert await tier.evict_idle() == 1
    assert await tier.offsets(ann, phone) is not None
    clock.advance(60.0)
    assert await tier.evict_idle() == 0
    assert await tier.offsets(ann, phone) is None
    assert (tier.entry_count, tier.conversation_count, tier.offset_count) == (0, 0, 0)
    assert tier.evicted[EvictionCause.IDLE] == 1


async def test_a_conversation_that_is_written_to_now_and_then_is_not_idle(writer: Writer) -> None:
    """However long ago it was first written to."""
    clock = SteppedClock()
    source = Source(writer)
    tier = MemoryCachedTier(clock, CachedSettings(idle_seconds=60.0))
    await tier.append(await source.create())
    for _ in range(3):
        clock.advance(40.0)
        assert await tier.evict_idle() == 0
        await tier.append(await source.send(1))
    assert await source.seqs(tier, 0, 4) == [1, 2, 3, 4]


async def test_read_offsets_of_all_endpoints_together_are_bounded(writer: Writer) -> None:
    """An endpoint goes whole: half of its offsets would pass for all of them."""
    tier = MemoryCachedTier(SteppedClock(), CachedSettings(offsets=5))
    phones = [EndpointId(name) for name in "abc"]
    offsets = {ConversationKey(1): Seq(1), ConversationKey(2): Seq(1)}
    for phone in phones:
        await tier.load_offsets(UserId("ann"), phone, offsets)
    found = [await tier.offsets(UserId("ann"), phone) for phone in phones]
    assert found == [None, offsets, offsets]


async def test_a_conversation_whose_members_are_not_known_keeps_its_entries(
    writer: Writer,
) -> None:
    """Evicting needs to know who all is."""
    source = Source(writer)
    tier = MemoryCachedTier(SteppedClock())
    await tier.append(await source.create())
    move = OffsetMove(source.key, UserId("ann"), EndpointId("phone"), Seq(1))
    await tier.confirm([move], {})
    assert await source.seqs(tier, 0, 1) == [1]
