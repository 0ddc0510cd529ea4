"""The SQLite local store: what was flushed is there afterwards, whatever was flushed around it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.client.runs import pack_copy, unpack_copy
from trunkline.client.sqlite_store import SqliteStore
from trunkline.client.store import Changes, Copy, Outgoing
from trunkline.errors import (
    DataDamaged,
    DataDirLocked,
    DataDirNewer,
    StorageFull,
    StoreOfAnotherEndpoint,
)
from trunkline.model import ConversationId, ConversationKind, EndpointId, Entry, Seq, UserId

ROOM, OTHER = ConversationId("room"), ConversationId("José ")
ANN, PHONE = UserId("ann"), EndpointId("phone")


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(Seq(n), UserId("bob"), n, f"body {n} " * 5) for n in range(first, last + 1)]


def copy(conversation: ConversationId, last: int) -> Copy:
    return Copy(
        conversation, ConversationKind.GROUP, Seq(1), Seq(last), Seq(last), bytes(16), bytes(32)
    )


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


def grown(conversation: ConversationId, first: int, last: int) -> Changes:
    return Changes(runs=[(conversation, [entries(first, last)])], copies=[copy(conversation, last)])


def test_a_copy_of_before_conversations_could_be_shredded_is_read() -> None:
    older = msgspec.msgpack.decode(pack_copy(copy(ROOM, 3)))[:-1]
    assert unpack_copy(msgspec.msgpack.encode(older)) == copy(ROOM, 3)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80), data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_runs_of_any_length_are_read_back_in_any_range(
    tmp_path: Path, lengths: Sequence[int], data: st.DataObject
) -> None:
    path = tmp_path / "local.db"
    path.unlink(missing_ok=True)
    async with SqliteStore(path) as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        last = 0
        for length in lengths:
            handle.write(grown(ROOM, last + 1, last + length))
            handle.write(grown(OTHER, last + 1, last + length))
            last += length
            await handle.flush()
    async with SqliteStore(path) as store:
        handle = await store.open(ANN, PHONE)
        loaded = await handle.load()
        assert sorted(c.last for c in loaded.copies) == [last, last]
        after = data.draw(st.integers(0, last))
        up_to = data.draw(st.integers(after, last))
        for conversation in (ROOM, OTHER):
            assert await handle.read(conversation, Seq(0), Seq(last)) == entries(1, last)
            some = await handle.read(conversation, Seq(after), Seq(up_to))
            assert some == entries(after + 1, up_to)


async def test_the_files_are_their_owners_alone_also_those_of_before(tmp_path: Path) -> None:
    path = tmp_path / "local.db"
    umask = os.umask(0)
    try:
        for found in ("made", "opened again"):
            async with SqliteStore(path) as store:
                handle = await store.open(ANN, PHONE)
                await handle.load()
                handle.write(grown(ROOM, 1, 3) if found == "made" else grown(ROOM, 4, 6))
                await handle.flush()
                modes = modes_in(tmp_path)
                assert "local.db-wal" in modes
                assert set(modes.values()) == {0o600}, found
            path.chmod(0o644)
    finally:
        os.umask(umask)


async def test_a_store_of_the_first_format_is_taken_over_in_place(tmp_path: Path) -> None:
    path = tmp_path / "local.db"
    async with SqliteStore(path) as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        handle.write(msgspec.structs.replace(grown(ROOM, 1, 300), cursor=7))
        await handle.flush()
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE endpoint (number INTEGER PRIMARY KEY, user BLOB NOT NULL,
                endpoint BLOB NOT NULL, cursor INTEGER NOT NULL DEFAULT 0, UNIQUE (user, endpoint));
            INSERT INTO endpoint SELECT number, user, endpoint, cursor FROM part;
            DROP TABLE part;
            PRAGMA user_version = 1;
        """)
    connection.close()
    async with SqliteStore(path) as store:
        handle = await store.open(ANN, PHONE)
        loaded = await handle.load()
        assert (loaded.cursor, loaded.met, len(loaded.copies)) == (7, None, 1)
        assert await handle.read(ROOM, Seq(0), Seq(300)) == entries(1, 300)


async def test_single_entries_are_joined_into_longer_runs(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        for n in range(1, 201):
            handle.write(grown(ROOM, n, n))
            await handle.flush()
        assert await handle.read(ROOM, Seq(0), Seq(200)) == entries(1, 200)
    with sqlite3.connect(tmp_path / "local.db") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM run").fetchone()
    connection.close()
    assert rows < 40


async def test_a_dropped_copy_starts_again(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        handle.write(grown(ROOM, 1, 500))
        handle.write(grown(OTHER, 1, 5))
        handle.write(Changes([ROOM], [(ROOM, [entries(400, 410)])], [copy(ROOM, 410)]))
        await handle.flush()
        assert await handle.read(ROOM, Seq(0), Seq(1000)) == entries(400, 410)
        assert await handle.read(OTHER, Seq(0), Seq(1000)) == entries(1, 5)


async def test_endpoints_of_one_file_do_not_see_each_other(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        keys = [(ANN, PHONE), (ANN, EndpointId("laptop")), (UserId("Ann"), PHONE)]
        handles = [await store.open(*key) for key in keys]
        for number, handle in enumerate(handles, 1):
            await handle.load()
            handle.write(grown(ROOM, 1, number))
            handle.write(Changes(posted=[Outgoing(1, b"frame %d" % number)], cursor=number))
        await handles[0].flush()
        for handle in handles:
            await handle.close()
        for number, key in enumerate(keys, 1):
            handle = await store.open(*key)
            loaded = await handle.load()
            assert loaded.cursor == number
            assert [one.frame for one in loaded.outbox] == [b"frame %d" % number]
            assert await handle.read(ROOM, Seq(0), Seq(9)) == entries(1, number)


async def test_what_is_settled_leaves_the_outbox_and_the_rest_keeps_its_order(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        handle.write(Changes(posted=[Outgoing(n, b"%d" % n) for n in (1, 2, 3, 10)]))
        await handle.flush()
        handle.write(Changes(posted=[Outgoing(11, b"11"), Outgoing(12, b"12")], settled=[2]))
        handle.write(Changes(settled=[11]))
        await handle.flush()
        assert [o.number for o in (await handle.load()).outbox] == [1, 3, 10, 12]


async def test_what_was_flushed_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_sqlite_store import *

async def main():
    store = SqliteStore({str(tmp_path / "local.db")!r})
    handle = await store.open(ANN, PHONE)
    await handle.load()
    handle.write(grown(ROOM, 1, 300))
    await handle.flush()
    handle.write(grown(ROOM, 301, 400))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], timeout=60)
    assert run.returncode == -9
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        assert [c.last for c in (await handle.load()).copies] == [300]
        assert await handle.read(ROOM, Seq(0), Seq(500)) == entries(1, 300)


async def test_a_flush_syncs_to_disk() -> None:
    """What `flush` returned for must survive a power cut, so WAL alone is not enough."""
    async with SqliteStore(":memory:") as store:
        await store.open(ANN, PHONE)
        file = store._file
        assert file is not None
        level = await store.read(lambda: file._connection.execute("PRAGMA synchronous").fetchone())
        assert level == (2,)


async def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        file = store._file
        assert file is not None
        await store.read(lambda: file._connection.execute("PRAGMA max_page_count = 12").fetchone())
        handle.write(Changes(posted=[Outgoing(n, os.urandom(500)) for n in range(1000)]))
        handle.write(grown(ROOM, 1, 10))
        with pytest.raises(StorageFull) as refused:
            await handle.flush()
        assert refused.value.retryable
        await store.read(
            lambda: file._connection.execute("PRAGMA max_page_count = 9999").fetchone()
        )
        await handle.flush()
        assert await handle.read(ROOM, Seq(0), Seq(10)) == entries(1, 10)
        assert len((await handle.load()).outbox) == 1000


async def test_a_file_that_another_process_has_open_is_refused(tmp_path: Path) -> None:
    async with (
        SqliteStore(tmp_path / "local.db") as store,
        SqliteStore(tmp_path / "local.db") as second,
    ):
        await store.open(ANN, PHONE)
        with pytest.raises(DataDirLocked):
            await second.open(ANN, PHONE)


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "local.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    async with SqliteStore(tmp_path / "local.db") as store:
        with pytest.raises(DataDirNewer):
            await store.open(ANN, PHONE)


async def test_a_file_that_is_no_database_is_named_damaged(tmp_path: Path) -> None:
    (tmp_path / "local.db").write_bytes(b"no database at all" * 1000)
    async with SqliteStore(tmp_path / "local.db") as store:
        with pytest.raises(DataDamaged):
            await store.open(ANN, PHONE)


async def test_an_endpoint_is_open_once_at_a_time(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        with pytest.raises(StoreOfAnotherEndpoint):
            await store.open(ANN, PHONE)
        await handle.close()
        await (await store.open(ANN, PHONE)).close()


async def test_a_cancelled_flush_leaves_the_store_usable(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        for n in range(1, 50):
            handle.write(grown(ROOM, n, n))
            flush = asyncio.ensure_future(handle.flush())
            await asyncio.sleep(0)
            flush.cancel()
            await asyncio.gather(flush, return_exceptions=True)
        await handle.flush()
        assert await handle.read(ROOM, Seq(0), Seq(49)) == entries(1, 49)


async def test_a_copied_file_opens_elsewhere(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "local.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        handle.write(grown(ROOM, 1, 10))
    shutil.copy(tmp_path / "local.db", tmp_path / "copied.db")
    async with SqliteStore(tmp_path / "copied.db") as store:
        handle = await store.open(ANN, PHONE)
        await handle.load()
        assert await handle.read(ROOM, Seq(0), Seq(10)) == entries(1, 10)
