"""The cold tier on a real HBase keeps the promises of its ports, and its own layout."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import hbase_tables
import msgspec
import pytest

from trunkline.adapters.hbase import rows, table
from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.opening import open_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.records import pack_metadata
from trunkline.adapters.hbase.settings import Settings
from trunkline.core.envelope import wrapped_header
from trunkline.errors import DataDamaged, TierUnavailable
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    Member,
    Segment,
    Seq,
    UserId,
)
from trunkline.ports.cold import ColdStore
from trunkline.testing.conformance import ColdStoreSuite, SteppedClock


@dataclass
class OpenStores:
    cold: ColdStore


class HbaseMaker:
    def __init__(self, settings: Settings) -> None:
        self.clock = SteppedClock()
        self._settings = settings

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[OpenStores]:
        async with open_hbase(self._settings) as tier:
            yield OpenStores(tier.cold)

    async def crash(self) -> None:
        """Nothing of the tier is in this process."""


@pytest.fixture
def make_store(hbase: Settings) -> HbaseMaker:
    return HbaseMaker(hbase)


class TestColdStore(ColdStoreSuite): ...


KEY = ConversationKey(7)


@pytest.fixture
def key() -> ConversationKey:
    """A conversation of this test alone: the table need not be empty."""
    return ConversationKey(random.getrandbits(60))


def segment(first: int, last: int, key: int = KEY, sealed: bytes | None = None) -> Segment:
    sealed = b"sealed %d" % last if sealed is None else sealed
    return Segment(ConversationKey(key), Seq(first), Seq(last), Digest(first << 70 | last), sealed)


def metadata(key: int) -> ColdMetadata:
    return ColdMetadata(
        Conversation(
            ConversationKey(key), ConversationId(f"c{key}"), ConversationKind.GROUP, b"wrapped"
        ),
        (),
    )  # fmt: skip


def covered(segments: Sequence[Segment], after: int, up_to: int) -> set[int]:
    """Which of after+1..up_to are in these segments."""
    within = range(after + 1, up_to + 1)
    return {seq for s in segments for seq in range(s.first, s.last + 1) if seq in within}


@pytest.mark.parametrize("seed", range(4))
async def test_a_read_brings_all_that_is_there_however_segments_overlap(
    hbase_table: Settings, key: ConversationKey, seed: int
) -> None:
    """I8: small ones on long ones, of the longest length, holes between them."""
    rnd = random.Random(seed)
    put = []
    for _ in range(60):
        first = rnd.randint(1, 2_000)
        length = rnd.choice([1, 1, 2, 10, 100, 255, 256])
        put.append(segment(first, first + length - 1, key))
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put(put, [])
        for _ in range(150):
            after = rnd.randrange(2_300)
            up_to = after + rnd.choice([1, 2, 80, 300, 1_000])
            found = await tier.cold.read(key, Seq(after), Seq(up_to))
            assert covered(found, after, up_to) == covered(put, after, up_to), (after, up_to)
            assert all(one in put for one in found)


async def test_the_longest_segment_is_found_by_its_last_entry(
    hbase_table: Settings, key: ConversationKey
) -> None:
    """I8: below more short ones than a page holds."""
    long = segment(1, 256, key)
    short = [segment(seq, seq, key) for seq in range(2, 256)]
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put([long, *short], [])
        assert await tier.cold.read(key, Seq(255), Seq(256)) == [long]
        assert covered(await tier.cold.read(key, Seq(0), Seq(300)), 0, 300) == set(range(1, 257))


async def test_a_segment_that_reads_could_miss_is_refused(hbase_table: Settings) -> None:
    """I8: no read looks further back than 256 entries."""
    async with open_hbase(hbase_table) as tier:
        with pytest.raises(AssertionError, match="I8"):
            await tier.cold.put([segment(1, 257)], [])


async def test_neighbouring_conversations_do_not_mix(hbase: Settings) -> None:
    """Also those at the ends of the key space."""
    keys = [0, 1, 2**64 - 1, 2**64 - 2]
    async with open_hbase(hbase) as tier:
        await tier.cold.put([segment(1, 9, key) for key in keys], [metadata(key) for key in keys])
        for key in keys:
            assert await tier.cold.read(ConversationKey(key), Seq(0), Seq(9)) == [
                segment(1, 9, key)
            ]
            assert await tier.cold.metadata(ConversationKey(key)) == metadata(key)
            found = tier.inspection.segments(ConversationKey(key))
            assert [one async for one in found] == [segment(1, 9, key)]


async def test_a_segment_larger_than_a_cell_comes_back_whole(
    hbase_table: Settings, key: ConversationKey
) -> None:
    """HBase refuses cells of more than 10 MiB."""
    large = segment(1, 2, key, sealed=random.Random(1).randbytes(11 << 20))
    smaller = segment(1, 2, key, sealed=b"erased")
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put([large], [])
        assert await tier.cold.read(key, Seq(0), Seq(2)) == [large]
        await tier.cold.put([smaller], [])
        assert await tier.cold.read(key, Seq(0), Seq(2)) == [smaller]


async def test_keys_come_in_order_in_bounded_memory(
    hbase: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given room for 5 keys and pages of 4 rows, when there are more, then each comes once."""
    for name, value in {"_KEYS_A_PASS": 5, "_KEYS_UNSORTED": 2, "_KEYS_A_PAGE": 4}.items():
        monkeypatch.setattr(table, name, value)
    rnd = random.Random(3)
    keys = [rnd.getrandbits(64) for _ in range(25)]
    put = [segment(n, n, key) for key in keys for n in range(1, rnd.randint(2, 9))]
    only_metadata = [rnd.getrandbits(64) for _ in range(6)]
    async with open_hbase(hbase) as tier:
        await tier.cold.put(put, [metadata(key) for key in [*keys[:9], *only_metadata]])
        of_segments, of_any = tier.cold.keys(), tier.inspection.keys()
        assert [key async for key in of_segments] == sorted(keys)
        assert [key async for key in of_any] == sorted([*keys, *only_metadata])


async def test_an_inspection_gives_segments_by_first_and_last(
    hbase_table: Settings, key: ConversationKey
) -> None:
    """More than a page of them, and several of one first."""
    put = [segment(first, first + n, key) for first in range(1, 12) for n in (0, 1, 5)]
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put(put, [metadata(key)])
        assert [one async for one in tier.inspection.segments(key)] == put
        assert await tier.inspection.metadata(key) == metadata(key)
        assert await tier.inspection.faults() == []


def head(first: int, last: int, key: int) -> bytes:
    """The head cell of a segment whose sealed bytes are `sealed 9`."""
    put = rows.put_segment(segment(first, last, key, b"sealed 9"))
    return bytes(put.columnValues[0].value)


def metadata_cell(key: int) -> bytes:
    return bytes(rows.put_metadata(metadata(key)).columnValues[0].value)


def crowd(key: int, members: int) -> ColdMetadata:
    """Metadata of a conversation that so many users were ever members of."""
    names = (UserId(f"{number:064}") for number in range(members))
    return ColdMetadata(metadata(key).conversation, tuple(Member(n, Seq(1)) for n in names))


def metadata_in_pieces(key: int) -> dict[bytes, bytes]:
    put = rows.put_metadata(crowd(key, 60_000))
    assert len(put.columnValues) == 4
    return {value.qualifier: value.value for value in put.columnValues}


@pytest.mark.parametrize(
    "cells",
    [
        lambda key: {b"0": b"sealed 9"},
        lambda key: {b"h": head(1, 9, key)},
        lambda key: {b"h": head(1, 9, key), b"0": b"sealed"},
        lambda key: {b"h": head(2, 9, key), b"0": b"sealed 9"},
        lambda key: {b"h": head(1, 9, key + 1), b"0": b"sealed 9"},
        lambda key: {b"h": head(1, 9, key)[:-4] + b"\xff" * 4, b"0": b"sealed"},
    ],
    ids=["no head", "no piece", "short piece", "other range", "other key", "missing pieces"],
)
async def test_a_row_that_does_not_hold_what_its_key_names_is_damage(
    hbase_table: Settings, key: ConversationKey, cells: Callable[[int], dict[bytes, bytes]]
) -> None:
    """And no answer; the conversations beside it are served."""
    beside = segment(1, 9, key + 1)
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put([beside], [])
        await hbase_tables.put_row(
            hbase_table, rows.put_segment(segment(1, 9, key)).row, cells(key)
        )
        with pytest.raises(DataDamaged):
            await tier.cold.read(key, Seq(0), Seq(9))
        with pytest.raises(DataDamaged):
            assert [one async for one in tier.inspection.segments(key)]
        assert await tier.cold.read(beside.key, Seq(0), Seq(9)) == [beside]


@pytest.mark.parametrize(
    "cells",
    [
        lambda key: {b"m": b"\x93nonsense"},
        lambda key: {b"h": head(1, 9, key)},
        lambda key: {b"m": metadata_cell(key + 1)},
        lambda key: dict(list(metadata_in_pieces(key).items())[:-1]),
        lambda key: {**metadata_in_pieces(key), b"1": b"of another state"},
    ],
    ids=["does not decode", "missing", "another's", "missing piece", "mixed pieces"],
)
async def test_metadata_that_is_not_the_conversations_is_damage(
    hbase_table: Settings, key: ConversationKey, cells: Callable[[int], dict[bytes, bytes]]
) -> None:
    """Served to nobody, and told to an audit."""
    async with open_hbase(hbase_table) as tier:
        await hbase_tables.put_row(hbase_table, rows.prefix(key), cells(key))
        with pytest.raises(DataDamaged):
            await tier.cold.metadata(key)
        with pytest.raises(DataDamaged):
            await tier.inspection.metadata(key)


async def test_metadata_may_be_larger_than_any_cell_and_small_again(
    hbase_table: Settings, key: ConversationKey
) -> None:
    """HBase refuses a cell of 10 MiB: that many users may be members, or have been."""
    large, small, other = crowd(key, 140_000), metadata(key), crowd(key, 60_000)
    assert len(pack_metadata(large)) > 10 << 20
    async with open_hbase(hbase_table) as tier:
        for put in (large, other, small, large):
            await tier.cold.put([], [put])
            assert await tier.cold.metadata(key) == put
        assert await tier.inspection.metadata(key) == large


async def test_what_no_row_may_hold_is_refused_before_it_is_sent(
    hbase_table: Settings, key: ConversationKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "METADATA_BYTES", 1_000)
    async with open_hbase(hbase_table) as tier:
        with pytest.raises(TierUnavailable, match="at most"):
            await tier.cold.put([], [crowd(key, 100)])
        assert await tier.cold.metadata(key) is None


async def test_the_last_put_counts_whatever_the_servers_clocks_say(
    hbase_table: Settings, key: ConversationKey
) -> None:
    """DESIGN section 10: given a clock that goes back, an erased body stays erased."""
    async with open_hbase(hbase_table) as tier:
        await tier.cold.put([segment(1, 9, key, b"before")], [])
        await tier.cold.put([segment(1, 9, key, b"erased")], [])
        (found,) = await tier.cold.read(key, Seq(0), Seq(9))
        assert found.sealed == b"erased"
    async with connected(hbase_table, random.Random()) as pool:
        row = await pool.call(
            "get",
            hbase_table.table.encode(),
            idl.TGet(row=rows.put_segment(segment(1, 9, key)).row),
        )
    assert {value.timestamp for value in row.columnValues} == {1}


OF_ANOTHER_HASH = b"\xff\xff" + rows.put_segment(segment(1, 9, 4)).row[2:]


@pytest.mark.parametrize(
    "row", [b"\0" * 26, b"\xff", OF_ANOTHER_HASH], ids=["no range", "short", "other hash"]
)
async def test_a_row_key_that_is_none_is_told_after_the_keys(hbase: Settings, row: bytes) -> None:
    """What the others name comes all the same."""
    async with open_hbase(hbase) as tier:
        await tier.cold.put([segment(1, 9, key) for key in (1, 2, 3)], [])
        await hbase_tables.put_row(hbase, row, {b"h": b"h"})
        found = tier.cold.keys()
        assert [await anext(found) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(DataDamaged):
            await anext(found)


async def test_what_an_archiver_puts_late_brings_no_old_key_back(hbase: Settings) -> None:
    """A wrapped key is hidden by one of a newer KEK, and for ever by none at all."""
    first, second, shredded = (
        ColdMetadata(msgspec.structs.replace(metadata(1).conversation, wrapped_key=key), ())
        for key in (wrapped_header(1) + b"old", wrapped_header(2) + b"new", b"")
    )
    async with open_hbase(hbase) as tier:
        for put, seen in [
            (first, first), (second, second), (first, second), (second, second),
            (shredded, shredded), (second, shredded), (first, shredded),
        ]:  # fmt: skip
            await tier.cold.put([], [put])
            found = await tier.cold.metadata(put.conversation.key)
            assert found is not None
            assert found.conversation.wrapped_key == seen.conversation.wrapped_key


def test_every_row_is_synced_to_disk() -> None:
    """Whatever the table or the site says; I10 trims what was put."""
    wanted = idl.TDurability.FSYNC_WAL
    puts = [rows.put_segment(segment(1, 9)), rows.put_metadata(metadata(1))]
    assert [put.durability for put in puts] == [wanted, wanted]


def test_segments_lie_newest_first_behind_their_metadata() -> None:
    """DESIGN section 5: the row key's order is that of reads."""
    keys = [
        rows.put_segment(segment(*bounds)).row for bounds in [(300, 300), (9, 9), (1, 2), (1, 9)]
    ]
    in_order = [rows.prefix(KEY), *keys, rows.end(KEY)]
    assert in_order == sorted(in_order)
    assert rows.place(keys[0]) == rows.Place(KEY, Seq(300), Seq(300))
    assert msgspec.structs.astuple(rows.place(in_order[0])) == (KEY, 0, 0)
