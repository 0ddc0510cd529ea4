"""Reads that meet are one read on every tier; what was read is kept, but not for too long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import pytest

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core import segments
from trunkline.errors import ConversationShredded, SealBroken, TierUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    EndpointId,
    Entry,
    Segment,
    Seq,
    StoredEntry,
    UserId,
)
from trunkline.services.access import Views
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.pulls import Pulls
from trunkline.services.reader import Reader
from trunkline.services.registry import Connection
from trunkline.services.settings import ServiceSettings
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import view
from trunkline.testing.idle_load import IdleLoad
from trunkline.wire.encoding import JSON, MESSAGEPACK, Encoding
from trunkline.wire.frames import Pull, Range

GROUP = ConversationId("g")
ANN = UserId("ann")
HEAD, IN_HOT, IN_CACHED = 1_000, 400, 100
MEMBERS = 500
SETTINGS = ServiceSettings(
    newest_group=IN_HOT, archive_entries_per_second=100_000_000, read_cache_seconds=60.0
)
T = TypeVar("T", StoredEntry, Segment)


class Counted:
    """A tier whose reads are counted and take a few turns of the loop."""

    def __init__(self, tier: object) -> None:
        self._tier = tier
        self.reads: list[tuple[int, int]] = []
        self.fails = False

    async def read(self, key: ConversationKey, after: Seq, up_to_inclusive: Seq) -> Sequence[T]:
        self.reads.append((after, up_to_inclusive))
        for _ in range(3):
            await asyncio.sleep(0)  # whoever comes now meets this read
        if self.fails:
            raise TierUnavailable("It is away.")
        found: Sequence[T] = await self._tier.read(  # type: ignore[attr-defined]
            key, after, up_to_inclusive
        )
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._tier, name)


class ASocket:
    """An outlet of which only the encoding is asked, and how long an answer may be."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def page_bytes(self, most: int) -> int:
        """All of it."""
        return most


class Tiers:
    """A group of 1,000 entries: all in cold, the newest 400 in hot, the newest 100 cached."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.sealer = KeyringSealer(Keyring("test", 1, {1: bytes(32)}))
        self._hot = MemoryHotStore(self.clock)
        self._cold = MemoryColdStore()
        self._cached = MemoryCachedTier(self.clock)
        self.cached, self.hot, self.cold = map(Counted, (self._cached, self._hot, self._cold))
        self.metrics = Metrics()
        self.reader = self.new_reader(SETTINGS)

    def new_reader(self, settings: ServiceSettings) -> Reader:
        return Reader(
            self.hot, self.cached, self.cold, self.sealer,  # type: ignore[arg-type]
            self.clock, self.metrics, settings,
        )  # fmt: skip

    async def fill(self) -> Conversation:
        writer = Writer(self.sealer)
        await writer.append(self._hot, writer.create(GROUP, ANN, "c"))
        drafts = [writer.message(GROUP, ANN, f"{n:04}", f"body {n}") for n in range(2, HEAD + 1)]
        await writer.append(self._hot, *drafts[: HEAD - IN_CACHED - 1])
        decision = await self._hot.append(drafts[HEAD - IN_CACHED - 1 :], writer.decide)
        await self._cached.append(decision.writes)
        archiver = Archiver(
            self._hot, self._hot.tasks, self._cold, self.sealer, self.clock, Metrics(), SETTINGS,
            IdleLoad(), random.Random(1).getrandbits,
        )  # fmt: skip
        while await archiver.run_once():
            pass
        row, _ = await view(self._hot, ANN, GROUP)
        assert len(await self._hot.read(row.key, Seq(0), row.head)) == IN_HOT
        return row

    async def erase(self, row: Conversation, seq: int) -> None:
        """Puts every segment again, without the body of an entry."""
        cipher = self.sealer.cipher(row.wrapped_key, row.place)
        for segment in await self._cold.read(row.key, Seq(0), row.head):
            part = segments.open_segment(row, segment, cipher)
            entries = [msgspec.structs.replace(e, body="") if e.seq == seq else e
                       for e in part.entries]  # fmt: skip
            again = segments.seal(row, entries, part.countable_before, cipher)
            await self._cold.put([again], [])

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def tiers() -> Tiers:
    return Tiers()


async def pull_all(pulls: Pulls, encoding: Encoding) -> list[Entry]:
    """What a member gets who pulls everything, page by page."""
    connection = Connection(
        "name", ANN, EndpointId("phone"), ASocket(encoding),  # type: ignore[arg-type]
        push=True,
    )  # fmt: skip
    entries: list[Entry] = []
    after = ""
    while True:
        ranges = [Range(GROUP, Seq(0), None)] if not after else []
        page = await pulls.pull(connection, Pull(1, ranges, after))
        decoded = encoding.decode_server(encoding.encode(page))
        entries += [entry for run in decoded.runs for entry in run.entries]  # type: ignore[union-attr]
        after = page.next
        if not after:
            return entries


@pytest.mark.parametrize("encodings", [(MESSAGEPACK,), (MESSAGEPACK, JSON)])
async def test_a_group_that_returns_at_once_reads_each_tier_once(
    tiers: Tiers, encodings: tuple[Encoding, ...]
) -> None:
    """I8: 500 members, one read of each run of 128 on each tier, whatever they speak; a cold
    segment holds two runs.
    """
    await tiers.fill()
    pulls = Pulls(
        Views(tiers.hot), tiers.reader, tiers.metrics,  # type: ignore[arg-type]
        page_bytes=SETTINGS.page_bytes, most_ranges=SETTINGS.ranges_per_pull,
    )  # fmt: skip
    everything = await asyncio.gather(
        *(pull_all(pulls, encodings[n % len(encodings)]) for n in range(MEMBERS))
    )
    for entries in everything:
        assert [entry.seq for entry in entries] == list(range(1, HEAD + 1))
        assert [entry.body for entry in entries[1:]] == [f"body {n}" for n in range(2, HEAD + 1)]
    assert [len(tier.reads) for tier in (tiers.cached, tiers.hot, tiers.cold)] == [8, 8, 3]
    assert tiers.sample("trunkline_pull_depth_entries_count", kind="group") == MEMBERS
    assert tiers.sample("trunkline_pull_depth_entries_bucket", kind="group", le="1000.0") == MEMBERS
    assert tiers.sample("trunkline_pull_depth_entries_bucket", kind="group", le="320.0") == 0


async def test_each_tier_counts_what_it_answered(tiers: Tiers) -> None:
    row = await tiers.fill()
    await tiers.reader.entries(row, Seq(0), row.head)
    for tier, entries, hits in (
        ("cached", IN_CACHED, 0),
        ("hot", IN_HOT - IN_CACHED, 0),
        ("cold", HEAD - IN_HOT, 1),
    ):
        assert tiers.sample("trunkline_tier_entries_total", tier=tier) == entries
        assert tiers.sample("trunkline_tier_reads_total", tier=tier) == 1
        assert tiers.sample("trunkline_tier_hits_total", tier=tier) == hits
        assert tiers.sample("trunkline_tier_read_seconds_count", tier=tier) == 1


async def test_a_tier_that_fails_is_counted_and_the_next_read_asks_it_again(tiers: Tiers) -> None:
    """I8: an error, nothing short; those who waited for the read get the error, too."""
    row = await tiers.fill()
    tiers.cold.fails = True
    reads = [tiers.reader.entries(row, Seq(0), row.head) for _ in range(5)]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TierUnavailable] * 5
    assert len(tiers.cold.reads) == 1
    assert tiers.sample("trunkline_tier_failures_total", tier="cold", code="tier_unavailable") == 1
    tiers.cold.fails = False
    assert len(await tiers.reader.entries(row, Seq(0), row.head)) == HEAD


async def test_what_was_opened_lately_is_not_asked_of_the_cold_tier_again(tiers: Tiers) -> None:
    """Another range, within what the segments held."""
    row = await tiers.fill()
    await tiers.reader.entries(row, Seq(0), Seq(200))
    assert len(tiers.cold.reads) == 1
    for after, up_to in ((0, 200), (10, 20), (100, 256), (255, 256)):
        found = await tiers.reader.entries(row, Seq(after), Seq(up_to))
        assert [entry.seq for entry in found] == list(range(after + 1, up_to + 1))
    assert len(tiers.cold.reads) == 1
    assert tiers.sample("trunkline_segment_cache_entries_total") == 190 + 10 + 156 + 1 + 10


async def test_an_erasure_shows_once_what_was_opened_is_too_old(tiers: Tiers) -> None:
    """However often it is asked for meanwhile, by entries and as encoded runs."""
    row = await tiers.fill()
    await tiers.erase(row, 7)
    assert (await tiers.reader.entries(row, Seq(0), Seq(9)))[6].body == ""
    tiers = Tiers()
    row = await tiers.fill()
    first = await tiers.reader.encoded(row, Seq(0), Seq(9), JSON)
    await tiers.erase(row, 7)
    for _ in range(3):
        tiers.clock.advance(9.9)
        assert (await tiers.reader.entries(row, Seq(0), Seq(9)))[6].body == "body 7"
        assert await tiers.reader.encoded(row, Seq(0), Seq(9), JSON) is first
    late = await tiers.reader.encoded(row, Seq(0), Seq(9), MESSAGEPACK)
    assert b"body 7" in bytes(late.data)
    tiers.clock.advance(0.4)
    assert (await tiers.reader.entries(row, Seq(0), Seq(9)))[6].body == ""
    assert b"body 7" not in bytes((await tiers.reader.encoded(row, Seq(0), Seq(9), JSON)).data)
    tiers.clock.advance(SETTINGS.read_cache_seconds - 9.9 * 3 - 0.4)
    for encoding in (JSON, MESSAGEPACK):
        run = await tiers.reader.encoded(row, Seq(0), Seq(9), encoding)
        assert b"body 7" not in bytes(run.data)


async def test_what_another_wrapped_key_opened_is_not_given(tiers: Tiers) -> None:
    """A conversation whose key was destroyed is not served from memory."""
    row = await tiers.fill()
    await tiers.reader.encoded(row, Seq(0), Seq(9), JSON)
    destroyed = msgspec.structs.replace(row, wrapped_key=tiers.sealer.new_wrapped_key(row.place))
    with pytest.raises(SealBroken):
        await tiers.reader.entries(destroyed, Seq(0), Seq(9))
    with pytest.raises(SealBroken):
        await tiers.reader.encoded(destroyed, Seq(0), Seq(9), JSON)


async def test_opened_segments_stay_within_their_bytes(tiers: Tiers) -> None:
    row = await tiers.fill()
    most = 100_000
    reader = tiers.new_reader(msgspec.structs.replace(SETTINGS, segment_cache_bytes=most))
    for after in range(0, HEAD - IN_HOT, 100):
        await reader.entries(row, Seq(after), Seq(after + 100))
        assert 0 < tiers.sample("trunkline_segment_cache_bytes") <= most


async def test_what_is_kept_is_not_given_out_once_its_key_is_destroyed(tiers: Tiers) -> None:
    row = await tiers.fill()
    await tiers.reader.encoded(row, Seq(0), Seq(9), JSON)
    with pytest.raises(ConversationShredded):
        await tiers.reader.encoded(
            msgspec.structs.replace(row, wrapped_key=b""), Seq(0), Seq(9), JSON
        )


async def test_what_is_too_old_is_forgotten_also_where_nobody_asks_for_it(tiers: Tiers) -> None:
    row = await tiers.fill()
    await tiers.reader.encoded(row, Seq(0), Seq(9), JSON)
    kept = ("trunkline_page_cache_bytes", "trunkline_segment_cache_bytes")
    tiers.reader.forget_old()
    assert all(tiers.sample(name) for name in kept)
    tiers.clock.advance(SETTINGS.read_cache_seconds)
    tiers.reader.forget_old()
    assert not any(tiers.sample(name) for name in kept)
