"""A write-ahead log is walked as SQLite does, but damage is told from a torn end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from trunkline.adapters.sqlite.database import connect
from trunkline.adapters.sqlite.wal import WalCheck, check_wal

HEADER, FRAME_HEADER, PAGE = 32, 24, 8192
STEP = FRAME_HEADER + PAGE


@pytest.fixture
def wal(tmp_path: Path) -> Iterator[Path]:
    """The log of five transactions, of at least two frames each."""
    with closing(connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        for _ in range(4):
            connection.execute("INSERT INTO t (body) VALUES (randomblob(20000))")
        copy = tmp_path / "copy-wal"
        copy.write_bytes((tmp_path / "x.db-wal").read_bytes())
        (tmp_path / "copy").write_bytes((tmp_path / "x.db").read_bytes())
        yield copy


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_log_that_nobody_touched_is_whole(wal: Path) -> None:
    frames = (wal.stat().st_size - HEADER) // STEP
    assert check_wal(wal) == WalCheck(frames, 5)


def test_there_is_nothing_wrong_with_no_log_and_an_empty_one(tmp_path: Path) -> None:
    assert check_wal(tmp_path / "none-wal") == WalCheck()
    (tmp_path / "empty-wal").touch()
    assert check_wal(tmp_path / "empty-wal") == WalCheck()


@pytest.mark.parametrize("keep", [1, STEP // 2, STEP - 1])
def test_a_last_frame_that_was_cut_off_is_torn_not_damaged(wal: Path, keep: int) -> None:
    whole = check_wal(wal)
    with wal.open("r+b") as file:
        file.truncate(HEADER + (whole.frames - 1) * STEP + keep)
    found = check_wal(wal)
    assert (found.frames, found.commits, found.damage) == (whole.frames - 1, 4, "")


def test_a_last_frame_with_a_wrong_checksum_is_torn(wal: Path) -> None:
    flip(wal, wal.stat().st_size - 1)
    found = check_wal(wal)
    assert (found.torn_frames, found.damage, found.in_last_transaction) == (1, "", True)


@pytest.mark.parametrize("offset", [0, 4, 16, 20, FRAME_HEADER, STEP - 1])
def test_one_flipped_bit_that_commits_follow_is_damage(wal: Path, offset: int) -> None:
    flip(wal, HEADER + 2 * STEP + offset)
    found = check_wal(wal)
    assert found.frames == 2
    assert "frame 3" in found.damage
    assert not found.in_last_transaction


def test_damage_within_the_last_transaction_is_told_apart(wal: Path) -> None:
    """After a power cut its frames may have reached the disk in any order."""
    frames = check_wal(wal).frames
    flip(wal, HEADER + (frames - 2) * STEP + FRAME_HEADER)
    found = check_wal(wal)
    assert found.damage
    assert found.in_last_transaction


@pytest.mark.parametrize("offset", [0, 8, 16, 24])
def test_a_damaged_header_is_damage(wal: Path, offset: int) -> None:
    flip(wal, offset)
    assert "header" in check_wal(wal).damage


def test_frames_of_an_earlier_round_behind_the_end_do_not_count(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute("INSERT INTO t (body) VALUES (randomblob(100000))")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        connection.execute("INSERT INTO t (body) VALUES (1)")
        found = check_wal(tmp_path / "x.db-wal")
        assert (found.commits, found.torn_frames, found.damage) == (1, 0, "")


def test_what_counts_here_is_what_counts_for_sqlite(wal: Path) -> None:
    """The frames that SQLite takes are those up to the last commit before the damage."""
    flip(wal, wal.stat().st_size - 1)
    inserts = check_wal(wal).commits - 1
    with closing(sqlite3.connect(wal.with_name("copy"))) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (inserts,)
