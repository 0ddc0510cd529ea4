"""The SQLite that comes along has no known fault, and its files are their owner's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline import sqlite
from trunkline.errors import SqliteUnsafe
from trunkline.sqlite import Fault


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_a_library_that_may_lose_committed_pages_is_refused_by_name(version: str) -> None:
    """I4."""
    with pytest.raises(SqliteUnsafe, match=version):
        sqlite.check_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0"])
def test_a_library_with_the_fix_is_taken(version: str) -> None:
    sqlite.check_library(version)


def test_nothing_is_opened_with_a_faulty_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "library_version", lambda: "3.40.1")
    for opening in (
        lambda: sqlite.connect(tmp_path / "a.db", busy_seconds=0),
        lambda: sqlite.connect_immutable(tmp_path / "a.db"),
    ):
        with pytest.raises(SqliteUnsafe):
            opening()
    assert not list(tmp_path.iterdir())


def test_the_library_that_comes_along_has_no_fault() -> None:
    sqlite.check_library(sqlite.library_version())


def test_files_are_their_owners_alone_whatever_the_umask_and_what_was_there(tmp_path: Path) -> None:
    """I12."""
    path = tmp_path / "a.db"
    before = os.umask(0o022)
    try:
        for _ in range(2):
            connection = sqlite.connect(path, busy_seconds=0)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)")
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
            assert modes == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o600)
            connection.close()
            path.chmod(0o644)
    finally:
        os.umask(before)


def test_errors_say_what_they_mean(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    one, other = (sqlite.connect(path, busy_seconds=0) for _ in range(2))
    one.execute("CREATE TABLE t (x TEXT); BEGIN IMMEDIATE")
    with pytest.raises(sqlite.Error) as busy:
        other.execute("BEGIN IMMEDIATE")
    assert sqlite.fault_of(busy.value) is Fault.BUSY
    one.execute("PRAGMA max_page_count=1").fetchall()
    with pytest.raises(sqlite.Error) as full:
        one.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert sqlite.fault_of(full.value) is Fault.FULL
    if one.in_transaction:
        one.execute("ROLLBACK")
    one.execute("PRAGMA max_page_count=100").fetchall()
    one.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    with pytest.raises(UnicodeDecodeError) as text:
        one.execute("SELECT x FROM t").fetchall()
    assert sqlite.fault_of(text.value) is Fault.DAMAGED
    for connection in (one, other):
        connection.close()
    path.write_bytes(b"no database at all" * 100)
    broken = sqlite.connect(path, busy_seconds=0)
    with pytest.raises(sqlite.Error) as damaged:
        broken.execute("SELECT * FROM t").fetchall()
    assert sqlite.fault_of(damaged.value) is Fault.DAMAGED
    broken.close()


def test_a_connection_that_does_not_own_the_log_leaves_it_as_it_is_on_closing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    owner = sqlite.connect(path, busy_seconds=0)
    owner.execute("PRAGMA journal_mode=WAL").fetchall()
    reader = sqlite.connect(path, busy_seconds=0, owner=False)
    owner.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    owner.execute("CREATE TABLE t (x)")
    reader.execute("SELECT * FROM t").fetchall()
    log = path.with_name("a.db-wal").stat().st_size
    (tmp_path / "kept").mkdir()
    for file in ("a.db", "a.db-wal"):  # as a server that was killed leaves it
        (tmp_path / "kept" / file).write_bytes((tmp_path / file).read_bytes())
    owner.close()
    reader.close()
    left = sqlite.connect(tmp_path / "kept" / "a.db", busy_seconds=0, owner=False)
    left.execute("SELECT * FROM t").fetchall()
    left.close()
    assert (tmp_path / "kept" / "a.db-wal").stat().st_size == log
