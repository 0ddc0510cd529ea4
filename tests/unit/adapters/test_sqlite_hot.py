"""What the embedded hot store does when disks, callers and bounds get in the way."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from trunkline import sqlite
from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.adapters.sqlite.materialise import LOG_BYTES
from trunkline.adapters.sqlite.wal import check_wal
from trunkline.errors import (
    DataDamaged,
    StorageFull,
    StorageUnavailable,
)
from trunkline.model import EndpointId, MarkerMove, OffsetMove, Seq, UserId
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import (
    check_view,
    fill_group,
    known_seq_of,
    mark_archived,
    read_all,
    seq_of,
    view,
)

QUIET = Settings(materialiser="thread", idle_seconds=3_600.0, slice_age_seconds=3_600.0)
ANN, DAN, PHONE = UserId("ann"), UserId("dan"), EndpointId("phone")


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., EmbeddedStores]:
    def make(name: str = "data", **changes: object) -> EmbeddedStores:
        settings = msgspec.structs.replace(QUIET, **changes)
        return open_embedded(tmp_path / name, settings, SteppedClock())

    return make


async def send(writer: Writer, stores: EmbeddedStores, message_id: str, body: str = "hello") -> Seq:
    draft = writer.message("g", "ann", message_id, body)
    return seq_of((await writer.append(stores.hot, draft))[0])


# --- the disk ---------------------------------------------------------------------------


async def test_a_full_disk_refuses_changes_nothing_and_recovers_by_itself(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I4, DESIGN section 10."""
    async with opened() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        stores._journal.limit_pages(1)
        big = writer.message("g", "ann", "m", secrets.token_hex(100_000))
        with pytest.raises(StorageFull):
            await writer.append(stores.hot, big)
        assert (await view(stores.hot, "ann", "g"))[0].head == 1
        stores._journal.limit_pages(1_000_000)
        assert seq_of((await writer.append(stores.hot, big))[0]) == 2
    async with opened() as stores:
        await check_view(writer, stores.hot, "ann", "g")


async def test_no_body_and_no_name_stands_in_any_file_in_plaintext(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """I12."""
    async with opened() as stores:
        await writer.append(
            stores.hot,
            writer.create("g", "ann", "c", name="Geheimbund"),
            writer.message("g", "ann", "m", "streng geheim"),
        )
        await stores.materialise()
        files = {p.name: p.read_bytes() for p in (tmp_path / "data").iterdir()}
    everything = b"".join(files.values())
    assert b"ann" in everything
    assert b"geheim" not in everything
    assert b"Geheimbund" not in everything


@pytest.mark.parametrize("file", ["journal.db", "tables.db"])
async def test_a_log_that_grew_behind_a_reader_from_outside_shrinks_once_that_one_is_gone(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path, file: str
) -> None:
    bound = 100_000
    async with opened(journal_wal_bytes=bound, idle_seconds=0.02) as stores:
        log_bytes = {r.label: r.read for r in stores.readings() if r.metric.endswith("log_bytes")}
        bounds = {"journal.db": 2 * bound, "tables.db": LOG_BYTES}
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        await stores.materialise()
        with closing(sqlite.connect(tmp_path / "data" / file, busy_seconds=0)) as reader:
            reader.execute("BEGIN; SELECT count(*) FROM sqlite_master")
            n = 0
            while log_bytes[file]() <= bounds[file]:
                n += 1
                body = secrets.token_hex(4_000_000 if file == "tables.db" else 20_000)
                await writer.append(stores.hot, writer.message("g", "ann", f"m{n:03}", body))
                await stores.materialise()
        async with asyncio.timeout(10):
            while log_bytes[file]() > bounds[file]:
                stores._clock.advance(1.0)
                await asyncio.sleep(0.01)
        await check_view(writer, stores.hot, "ann", "g")


async def test_under_load_a_log_starts_over_and_is_cut_if_a_reader_made_it_long(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    async with opened(journal_wal_bytes=100_000) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        log_bytes = next(r.read for r in stores.readings() if r.label == "journal.db")
        numbers = itertools.count()

        async def send_some() -> None:
            body = secrets.token_hex(10_000)
            await send(writer, stores, f"m{next(numbers):04}", body)
            await asyncio.sleep(0.005)

        for _ in range(60):
            await send_some()
        assert log_bytes() <= 400_000  # of 1.4 MB that were written
        with closing(sqlite.connect(tmp_path / "data" / "journal.db", busy_seconds=0)) as reader:
            reader.execute("BEGIN; SELECT count(*) FROM sqlite_master")
            while log_bytes() <= 400_000:
                await send_some()
        async with asyncio.timeout(10):
            while log_bytes() > 400_000:
                await send_some()


# --- callers ----------------------------------------------------------------------------


async def test_a_cancelled_append_is_either_stored_whole_or_not_at_all(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I1, I2: cancelled at every step it may be at."""
    async with opened() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        for turns in range(12):
            sending = asyncio.ensure_future(send(writer, stores, f"m{turns:02}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        row, _ = await view(stores.hot, "ann", "g")
        assert await send(writer, stores, "z") in range(row.head + 1, 15)
        before = await check_view(writer, stores.hot, "ann", "g")
    async with opened() as stores:
        assert await check_view(writer, stores.hot, "ann", "g") == before


async def test_a_cancelled_move_does_not_take_others_with_it(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I9."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "dan", "g")
        moves = [
            asyncio.ensure_future(
                stores.hot.record([], [OffsetMove(row.key, UserId(user), PHONE, Seq(4))])
            )
            for user in ("ann", "bob", "dan")
        ]
        await asyncio.sleep(0)
        moves[0].cancel()
        results = await asyncio.gather(*moves, return_exceptions=True)
        assert results[1:] == [None, None]
        for user in ("bob", "dan"):
            assert await stores.hot.offsets(UserId(user), PHONE) == {row.key: 4}


async def test_a_marker_past_head_moves_nothing(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I9."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, before = await view(stores.hot, "dan", "g")
        await stores.hot.record([MarkerMove(row.key, DAN, Seq(row.head + 1), 99)], [])
        assert (await view(stores.hot, "dan", "g"))[1] == before


async def test_a_new_conversation_never_takes_the_key_of_another(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    async with opened() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c", key=7))
        with pytest.raises(StorageUnavailable):
            await writer.append(stores.hot, writer.create("h", "ann", "c", key=7))
    async with opened() as stores:
        with pytest.raises(StorageUnavailable):
            await writer.append(stores.hot, writer.create("h", "ann", "c", key=7))
        assert await send(writer, stores, "m") == 2


# --- bounds -----------------------------------------------------------------------------


async def test_past_the_bound_of_what_is_pending_appends_wait_for_the_materialiser(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    async with opened(pending_entries=8, slice_entries=1_000) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        for i in range(40):
            assert await send(writer, stores, f"m{i:02}") == i + 2
        await check_view(writer, stores.hot, "ann", "g")


async def test_an_append_that_gets_no_room_in_time_is_refused_retryably(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    async with opened(pending_entries=2, pending_wait_seconds=0.0) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        await send(writer, stores, "m")
        with pytest.raises(StorageUnavailable):
            await send(writer, stores, "n")
        await stores.materialise()
        assert await send(writer, stores, "n") == 3


# --- from the journal into the tables ---------------------------------------------------


async def test_a_clean_close_leaves_everything_in_the_tables_and_no_log(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        await writer.append(
            stores.hot, writer.message("g", "ann", "big", secrets.token_hex(500_000))
        )
    assert (tmp_path / "data" / "journal.db").stat().st_size < 100_000
    left = {p.name for p in (tmp_path / "data").iterdir()}
    assert left == {"format", "witness", "lock", "journal.db", "tables.db", "cold.db"}
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as journal:
        assert journal.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    with closing(sqlite3.connect(tmp_path / "data" / "tables.db")) as tables:
        assert tables.execute("SELECT count(*) FROM message").fetchone() == (10,)


async def test_a_slice_that_is_repeated_changes_nothing(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """A crash may fall between any two of its transactions, at the latest before the watermark."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "ann", "g")
        await stores.hot.record(
            [MarkerMove(row.key, DAN, Seq(5), 4)], [OffsetMove(row.key, DAN, PHONE, Seq(6))]
        )
        await writer.append(stores.hot, writer.leave("g", "bob", "l"))
        await mark_archived(stores.tasks, {row.key: 4})
        await stores.hot.trim([(row.key, Seq(3))])
        await stores.materialise()
        shutil.copytree(tmp_path / "data", tmp_path / "again")
    with closing(sqlite3.connect(tmp_path / "again" / "tables.db")) as tables:
        once = list(tables.iterdump())
        with tables:
            tables.execute("UPDATE watermark SET journal_id = 0, version = 0")
    async with opened("again"):
        pass
    with closing(sqlite3.connect(tmp_path / "again" / "tables.db")) as tables:
        assert list(tables.iterdump()) == once


async def test_what_is_moved_while_newer_is_pending_does_not_hide_the_newer(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I9."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "dan", "g")
        for seq in (3, 5):
            marker = MarkerMove(row.key, DAN, Seq(seq), seq - 1)
            await stores.hot.record([marker], [OffsetMove(row.key, DAN, PHONE, Seq(seq))])
            newest = list(await stores.hot.conversations_of(DAN))
        await stores._upkeep._slice(stores.hot._state.last_id - 1)
        assert list(await stores.hot.conversations_of(DAN)) == newest
        assert await stores.hot.offsets(DAN, PHONE) == {row.key: 5}


async def test_a_lower_offset_that_comes_later_lowers_nothing_in_the_tables(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I9."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "dan", "g")
        for seq in (6, 2):
            await stores.hot.record([], [OffsetMove(row.key, DAN, PHONE, Seq(seq))])
            await stores.materialise()
        assert await stores.hot.offsets(DAN, PHONE) == {row.key: 6}


async def test_what_the_tables_hold_takes_no_memory_any_more(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "ann", "g")
        await stores.materialise()
        state = stores.hot._state
        slot = state.slot_of_key(row.key)
        assert slot is not None
        assert (state.entries, state.bytes, slot.pending) == (0, 0, [])
        assert not slot.ids


async def test_what_was_trimmed_is_gone_from_the_tables_and_its_ids_are_not(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """I6, I10."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "ann", "g")
        await stores.materialise()
        await mark_archived(stores.tasks, {row.key: 6})
        await stores.hot.trim([(row.key, Seq(6))])
        assert [e.seq for e in await read_all(stores.hot, row)] == [7, 8, 9]
        await stores.materialise()
        assert [e.seq for e in await read_all(stores.hot, row)] == [7, 8, 9]
        again = await writer.append(stores.hot, writer.message("g", "bob", "fill0"))
        assert known_seq_of(again[0]) == 2
    with closing(sqlite3.connect(tmp_path / "data" / "tables.db")) as tables:
        assert tables.execute("SELECT min(seq), count(*) FROM message").fetchone() == (7, 3)


async def test_client_message_ids_are_forgotten_after_their_time_and_not_before(
    opened: Callable[..., EmbeddedStores], writer: Writer
) -> None:
    """I6: kept at least 7 days."""
    day = 86_400.0
    stores = opened(idempotency_days=7, cached_conversations=1)
    async with stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        assert await send(writer, stores, "m") == 2
        await stores.materialise()
        for number, name in enumerate("hi"):
            stores._clock.advance(0.45 * day)  # twice, and then six more days
            await writer.append(stores.hot, writer.create(name, "ann", "c"))
            await stores.materialise()
            for step in range(3):
                stores._clock.advance(day)
                await writer.append(stores.hot, writer.message(name, "ann", f"{number}{step}"))
                await stores.materialise()
        again = await writer.append(stores.hot, writer.message("g", "ann", "m"))
        assert known_seq_of(again[0]) == 2
        stores._clock.advance(0.2 * day)
        await writer.append(stores.hot, *(writer.create(n, "ann", "c") for n in ("j", "k")))
        await stores.materialise()
        await writer.append(stores.hot, *(writer.message(n, "ann", "n") for n in "hi"))
        assert await send(writer, stores, "m") == 3


async def test_an_entry_that_is_missing_in_the_tables_is_never_answered_short(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """I8."""
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "ann", "g")
    with closing(sqlite3.connect(tmp_path / "data" / "tables.db")) as tables, tables:
        tables.execute("DELETE FROM message WHERE seq IN (1, 5)")
    async with opened() as stores:
        for after, up_to in [(0, 9), (0, 3), (3, 6), (4, 5)]:
            with pytest.raises(DataDamaged, match=r"tables\.db"):
                await stores.hot.read(row.key, Seq(after), Seq(up_to))
        assert len(await stores.hot.read(row.key, Seq(5), Seq(9))) == 4


@pytest.mark.parametrize(
    "damage", ["sender = CAST(x'ff' AS TEXT)", "kind = 'mess\u00e4ge'"], ids=["text", "kind"]
)
async def test_an_entry_that_does_not_decode_is_damage_and_not_worth_a_retry(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path, damage: str
) -> None:
    async with opened() as stores:
        await fill_group(writer, stores.hot)
        row, _ = await view(stores.hot, "ann", "g")
    with closing(sqlite3.connect(tmp_path / "data" / "tables.db")) as tables, tables:
        tables.execute(f"UPDATE message SET {damage} WHERE seq = 4")
    async with opened() as stores:
        with pytest.raises(DataDamaged, match=r"tables\.db"):
            await read_all(stores.hot, row)


# --- after a crash ----------------------------------------------------------------------


async def crashed(stores: EmbeddedStores, writer: Writer, folder: Path) -> Path:
    """What a crash leaves after some commits: data that only the journal and its log hold."""
    await fill_group(writer, stores.hot)
    for i in range(20):
        await send(writer, stores, f"m{i:02}")
    left = folder / "left"
    shutil.copytree(folder / "data", left)
    return left


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
async def test_a_flipped_byte_in_the_log_of_the_journal_stops_the_start_and_keeps_the_log(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path, place: float
) -> None:
    """I4: SQLite would go on without all commits behind it."""
    async with opened() as stores:
        wal = await crashed(stores, writer, tmp_path) / "journal.db-wal"
    data = bytearray(wal.read_bytes())
    data[int(len(data) * place)] ^= 1
    wal.write_bytes(data)
    with pytest.raises(DataDamaged, match=r"journal\.db-wal"):
        async with opened("left"):
            pass
    assert wal.read_bytes() == data
    assert check_wal(wal).damage


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE journal SET body = zeroblob(length(body)) WHERE id = 5",
        "UPDATE journal SET body = (SELECT body FROM journal WHERE id = 6) WHERE id = 5",
        "UPDATE journal SET entries = entries + 1 WHERE id = 5",
        "DELETE FROM journal WHERE id = 5",
        "DELETE FROM journal WHERE id < 5",
    ],
)
async def test_a_commit_that_is_not_what_was_written_stops_the_start(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path, damage: str
) -> None:
    """I4."""
    async with opened() as stores:
        left = await crashed(stores, writer, tmp_path)
    with closing(sqlite3.connect(left / "journal.db")) as journal, journal:
        journal.execute(damage)
    with pytest.raises(DataDamaged, match=r"journal\.db"):
        async with opened("left"):
            pass


async def test_after_a_crash_the_journal_is_answered_from_before_it_is_moved(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """I2, I4, I6."""
    async with opened() as stores:
        await crashed(stores, writer, tmp_path)
        before = await check_view(writer, stores.hot, "ann", "g")
        lines = list(await stores.hot.conversations_of(ANN))
    async with opened("left") as stores:
        assert await check_view(writer, stores.hot, "ann", "g") == before
        assert list(await stores.hot.conversations_of(ANN)) == lines
        again = await writer.append(stores.hot, writer.message("g", "ann", "m07"))
        assert known_seq_of(again[0]) == before[-1].seq - 12
        again = await writer.append(stores.hot, writer.message("g", "ann", "m05"))
        assert known_seq_of(again[0]) == before[-1].seq - 14
        assert await send(writer, stores, "m99") == before[-1].seq + 1


async def test_after_a_crash_ids_in_the_journal_are_known_beside_those_in_the_tables(
    opened: Callable[..., EmbeddedStores], writer: Writer, tmp_path: Path
) -> None:
    """I6: the highest id of a sender is that of both."""
    async with opened() as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        for i in range(6):
            await send(writer, stores, f"m{i}")
            if i == 2:
                await stores.materialise()
        shutil.copytree(tmp_path / "data", tmp_path / "left")
    async with opened("left") as stores:
        for i in (5, 3, 4, 0, 2):
            again = await writer.append(stores.hot, writer.message("g", "ann", f"m{i}"))
            assert known_seq_of(again[0]) == i + 2
