"""Damage made on purpose to a data directory is found and named; a sound one is clean."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from stored_directory import GROUPS, SINGLE, text_of

from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.app.offline import audit_directory, export_conversation
from trunkline.core.auditing import AuditReport
from trunkline.errors import DataDirInvalid, DataDirLocked, InvalidInput, NotMember

ENTRIES = 3_000
ALL_ENTRIES = GROUPS + ENTRIES + 2 * 4 * GROUPS + 2


def made(path: Path, *more: str) -> Path:
    """A directory that another process filled."""
    script = Path(__file__).with_name("stored_directory.py")
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(ENTRIES), *more],
        capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == (-9 if more else 0), done.stderr.decode()
    return path


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose stores were closed cleanly: not to be changed."""
    return made(tmp_path_factory.mktemp("closed") / "data")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory left by kill -9, half of it in the journal alone: not to be changed."""
    return made(tmp_path_factory.mktemp("killed") / "data", "--kill")


@pytest.fixture
def data(closed: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(closed, tmp_path / "data")


@pytest.fixture
def crashed(killed: Path, tmp_path: Path) -> Path:
    """A copy of what kill -9 left."""
    return shutil.copytree(killed, tmp_path / "data")


def codes(report: AuditReport) -> set[str]:
    return {finding.code for finding in report.findings}


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def flip(file: Path, seed: int, *, chunks: int = 40, first: int = 4096, last: int = 0) -> None:
    """Changes chunks of 16 bytes that are not empty, anywhere between two places."""
    random = Random(seed)
    size = last or file.stat().st_size
    with file.open("r+b") as opened:
        while chunks:
            place = random.randrange(first, size - 64)
            opened.seek(place)
            chunk = opened.read(16)
            if chunk.count(0) < 3:
                opened.seek(place)
                opened.write(bytes(byte ^ 0x5A for byte in chunk))
                chunks -= 1


# --- sound ------------------------------------------------------------------------------------


def test_a_sound_directory_is_clean_and_every_entry_is_counted(data: Path) -> None:
    report = audit_directory(data)

    assert report.findings == ()
    assert report.counted.entries == ALL_ENTRIES
    assert report.counted.conversations == GROUPS + 1
    assert report.counted.segments >= GROUPS
    assert report.counted.hot_entries < report.counted.entries
    assert report.counted.offsets == GROUPS


def test_what_kill_9_left_is_clean_and_holds_all_that_was_committed(crashed: Path) -> None:
    report = audit_directory(crashed)

    assert report.findings == ()
    assert report.counted.entries == ALL_ENTRIES
    assert audit_directory(crashed).counted == report.counted


def test_a_directory_that_a_crash_cut_off_at_its_making_is_empty_and_clean(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "keyring.json").write_bytes(b"{}")

    assert audit_directory(tmp_path).as_json()["entries"] == 0


def test_what_is_no_data_directory_is_refused_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").touch()

    with pytest.raises(DataDirInvalid):
        audit_directory(tmp_path)
    with pytest.raises(DataDirInvalid):
        audit_directory(tmp_path / "absent")
    assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]


def test_a_directory_that_is_open_is_refused(data: Path) -> None:
    with closing(DataDirectory.open(data)):
        with pytest.raises(DataDirLocked):
            audit_directory(data)
        with pytest.raises(DataDirLocked):
            next(export_conversation(data, "room-0"))


# --- records ----------------------------------------------------------------------------------


def sql(file: str, statement: str) -> Callable[[Path], None]:
    """Damage by one SQL statement in a file, which must change something."""

    def damage(data: Path) -> None:
        with closing(sqlite3.connect(data / file)) as connection, connection:
            changed = connection.execute(statement).rowcount
        assert changed > 0

    return damage


def swap_rows(data: Path) -> None:
    with closing(sqlite3.connect(data / "tables.db")) as connection, connection:
        for old, new in ((490, -1), (491, 490), (-1, 491)):
            connection.execute("UPDATE message SET seq = ? WHERE seq = ?", (new, old))


def change_keyring(data: Path) -> None:
    keyring = json.loads((data / "keyring.json").read_text())
    keyring["keys"]["1"] = "A" * 43 + "="
    (data / "keyring.json").write_text(json.dumps(keyring))


def truncate(file: str) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        os.truncate(data / file, (data / file).stat().st_size // 2)

    return damage


def remove(file: str) -> Callable[[Path], None]:
    return lambda data: (data / file).unlink()


FIRST = "(SELECT min(key) FROM message)"
RECORD_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a deleted row": (sql("tables.db", "DELETE FROM message WHERE seq = 490"), "hole"),
    "two swapped rows": (swap_rows, "seal_broken"),
    "a head lowered": (sql("tables.db", "UPDATE conversation SET head = head - 1"), "head_wrong"),
    "a head raised": (sql("tables.db", "UPDATE conversation SET head = head + 1"), "hole"),
    "a value of a wrong type": (
        sql("tables.db", "UPDATE message SET time_ms = 'noon' WHERE seq = 490"),
        "unreadable",
    ),
    "a kind that is none": (
        sql("tables.db", "UPDATE message SET kind = 'shout' WHERE seq = 490"),
        "unreadable",
    ),
    "a negative target": (
        sql("tables.db", "UPDATE message SET refers_to = -1 WHERE seq = 490"),
        "seal_broken",
    ),
    "a conversation's row removed": (
        sql("tables.db", f"DELETE FROM conversation WHERE key = {FIRST}"),
        "conversation_missing",
    ),
    "a member's row edited": (
        sql("tables.db", "UPDATE member SET visible_from = 1 WHERE user = 'user-7'"),
        "members_wrong",
    ),
    "a marker lowered": (
        sql("tables.db", "UPDATE member SET marker = marker - 20 WHERE user = 'user-0'"),
        "countable_wrong",
    ),
    "a marker past head": (
        sql("tables.db", "UPDATE member SET marker = 9999 WHERE user = 'user-0'"),
        "marker_wrong",
    ),
    "an offset past head": (
        sql("tables.db", "UPDATE endpoint_offset SET seq = 9999"),
        "offset_wrong",
    ),
    "an idempotency row that leads nowhere": (
        sql("tables.db", "UPDATE idempotency SET seq = 9999 WHERE client_message_id = 'hi1'"),
        "known_id_wrong",
    ),
    "an idempotency row removed": (
        sql("tables.db", "DELETE FROM idempotency WHERE client_message_id = 'hi2'"),
        "known_id_missing",
    ),
    "a line of a list removed": (
        sql("tables.db", f"DELETE FROM user_conversation WHERE key = {FIRST}"),
        "list_wrong",
    ),
    "a removed segment": (
        sql("cold.db", "DELETE FROM segment WHERE first = 1"),
        "cold_missing",
    ),
    "a segment moved": (
        sql("cold.db", "UPDATE segment SET first = -5 WHERE first = 1"),
        "seal_broken",
    ),
    "cold metadata removed": (sql("cold.db", "DELETE FROM metadata"), "cold_metadata_wrong"),
    "cold metadata that is none": (
        sql("cold.db", "UPDATE metadata SET body = x'00'"),
        "unreadable",
    ),
    "the watermark moved back": (
        sql("tables.db", "UPDATE watermark SET version = 1"),
        "file_damaged",
    ),
    "another keyring": (change_keyring, "keyring_wrong"),
    "no keyring": (remove("keyring.json"), "keyring_missing"),
    "no sentinel": (remove("sentinel"), "keyring_wrong"),
    "no cold file": (remove("cold.db"), "file_damaged"),
    "no tables": (remove("tables.db"), "file_damaged"),
    "tables cut off": (truncate("tables.db"), "file_damaged"),
    "a cold file cut off": (truncate("cold.db"), "file_damaged"),
    "a journal cut off": (truncate("journal.db"), "file_damaged"),
}  # fmt: skip


@pytest.mark.parametrize("damage", RECORD_DAMAGES)
def test_damage_is_found_and_named(damage: str, data: Path) -> None:
    make, code = RECORD_DAMAGES[damage]
    make(data)

    report = audit_directory(data)

    assert code in codes(report), report.findings


def test_with_another_keyring_the_rest_is_counted_all_the_same(data: Path) -> None:
    change_keyring(data)

    report = audit_directory(data)

    assert report.counted.hot_entries > 0
    assert report.counted.conversations == GROUPS + 1


# --- bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["tables.db", "cold.db"])
@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_found(file: str, seed: int, data: Path) -> None:
    flip(data / file, seed)

    assert audit_directory(data).findings


@pytest.mark.parametrize("file", ["tables.db", "cold.db"])
@pytest.mark.parametrize("seed", range(6))
def test_one_flipped_chunk_in_live_records_is_found(file: str, seed: int, data: Path) -> None:
    table = "message" if file == "tables.db" else "segment"
    with closing(sqlite3.connect(data / file)) as connection:
        rows = connection.execute(
            f"SELECT sealed FROM {table} WHERE length(sealed) > 60"
        ).fetchall()
    sealed = Random(seed).choice(rows)[0]
    whole = (data / file).read_bytes()
    place = whole.index(sealed[:40]) + 20
    (data / file).write_bytes(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])

    assert "seal_broken" in codes(audit_directory(data))


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_in_the_journal_s_log_are_found_and_nothing_is_touched(
    seed: int, crashed: Path
) -> None:
    wal = crashed / "journal.db-wal"
    flip(wal, seed, chunks=3, first=64, last=wal.stat().st_size // 2)
    before = content(crashed)

    report = audit_directory(crashed)

    assert "file_damaged" in codes(report)
    assert content(crashed) == before


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_in_the_journal_are_found(seed: int, crashed: Path) -> None:
    with closing(sqlite3.connect(crashed / "journal.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        watermark = sqlite3.connect(crashed / "tables.db")
        with closing(watermark):
            (last,) = watermark.execute("SELECT journal_id FROM watermark").fetchone()
        bodies = connection.execute("SELECT body FROM journal WHERE id > ?", (last,)).fetchall()
    body = Random(seed).choice(bodies)[0]
    whole = (crashed / "journal.db").read_bytes()
    place = whole.index(body[:32]) + 16
    (crashed / "journal.db").write_bytes(
        whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :]
    )

    assert "file_damaged" in codes(audit_directory(crashed))


def test_a_journal_that_lost_its_last_commits_but_one_is_found(crashed: Path) -> None:
    sql("journal.db", "DELETE FROM journal WHERE id = (SELECT max(id) - 1 FROM journal)")(crashed)

    assert "file_damaged" in codes(audit_directory(crashed))


# --- export -----------------------------------------------------------------------------------


@pytest.fixture
def lines(data: Path) -> list[dict[str, object]]:
    return list(export_conversation(data, "room-3"))


def test_an_export_gives_every_entry_of_both_tiers_in_order(
    lines: list[dict[str, object]],
) -> None:
    said = [text_of(number) for number in range(3, ENTRIES, GROUPS) if number % 50 != 7]

    assert [line["seq"] for line in lines] == list(range(1, ENTRIES // GROUPS + 10))
    told = [line["text"] for line in lines if "text" in line]
    assert [text for text in told if text != "I am here"] == said


def test_an_export_marks_system_entries_and_json(lines: list[dict[str, object]]) -> None:
    first = lines[0]
    assert (first["kind"], first["sender"]) == ("created", "user-0")
    assert "text" not in first
    assert first["content"] == {"users": [f"user-{n}" for n in range(6)], "name": "Hall"}
    told = [line for line in lines if line["kind"] == "message" and "text" not in line]
    assert all(line["content_type"] == "application/json" for line in told)
    assert {"number": 57} in [line["content"] for line in told]
    assert str(first["time"]).endswith("Z")


def test_an_export_takes_over_what_kill_9_left(crashed: Path) -> None:
    assert len(list(export_conversation(crashed, "room-3"))) == ENTRIES // GROUPS + 9


def test_an_export_finds_a_conversation_by_its_name(data: Path) -> None:
    (created, hello) = export_conversation(data, "the-two")

    assert created["kind"] == "created"
    assert hello["text"] == "hello you"
    assert list(export_conversation(data, SINGLE)) == [created, hello]


def test_a_name_of_two_conversations_or_of_none_is_refused(data: Path) -> None:
    with pytest.raises(InvalidInput, match="room-"):
        next(export_conversation(data, "Ops"))
    with pytest.raises(NotMember, match="no conversation"):
        next(export_conversation(data, "nobody"))
