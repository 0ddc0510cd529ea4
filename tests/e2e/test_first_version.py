"""A directory of the first version: taken over in place, and safe from who could write it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from command_line import run, run_json, serving
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trunkline.adapters.keyring import open_keyring
from trunkline.core.envelope import data_key_associated_data, is_bound
from trunkline.model import ConversationId, ConversationKey, Place, place_of

GROUP, MINE = "single:3:ann3:bob", "single:3:eve4:them"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory as the first version left it, with a message of ann to bob and one of eve."""
    path = tmp_path / "chat"
    with serving(path):
        send(path, "ann", "bob", "for bob alone")
        send(path, "eve", "them", "mine")
    make_first_version(path)
    return path


def send(path: Path, user: str, to: str, body: str) -> None:
    assert run("send", "--data", path, "--user", user, "--to", to, body).returncode == 0


@contextmanager
def tables(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path / "tables.db")) as connection, connection:
        yield connection


def make_first_version(path: Path) -> None:
    """Keys that are bound to nothing, rows without MACs, the sentinel and format of then."""
    kek = open_keyring(path / "keyring.json", create=False).keyring.keys[1]
    with tables(path) as connection:
        rows = connection.execute("SELECT key, id, wrapped_key FROM conversation").fetchall()
        for key, name, wrapped in rows:
            place = place_of(ConversationKey(key + 2**63), ConversationId(name))
            old = wrap(kek, b"trunkline data key", unwrap(kek, place, wrapped))
            connection.execute("UPDATE conversation SET wrapped_key = ? WHERE id = ?", (old, name))
        connection.execute("ALTER TABLE member DROP COLUMN mac")
    with closing(sqlite3.connect(path / "cold.db")) as cold, cold:
        cold.execute("DELETE FROM metadata")
        cold.execute("DELETE FROM segment")
    with tables(path) as connection:
        connection.execute("UPDATE conversation SET archived_up_to = 0, trimmed_up_to = 0")
    (path / "sentinel").write_bytes(wrap(kek, b"trunkline sentinel", b"trunkline sentinel"))
    (path / "format").write_text('{"version": 1, "created": "%s"}\n' % ("ab" * 16))


def unwrap(kek: bytes, place: Place, blob: bytes) -> bytes:
    bound_to = blob[:5] + data_key_associated_data(place)
    return AESGCM(kek).decrypt(blob[5:17], blob[17:], bound_to)


def wrap(kek: bytes, purpose: bytes, plaintext: bytes) -> bytes:
    header, nonce = b"\x01\x00\x00\x00\x01", os.urandom(12)
    return header + nonce + AESGCM(kek).encrypt(nonce, plaintext, header + purpose)


def bodies(path: Path, conversation: str) -> list[str]:
    lines = run("export", path, conversation).stdout.splitlines()
    return [entry["text"] for entry in map(json.loads, lines) if "text" in entry]


def test_it_is_read_as_it_is_and_taken_over_by_the_next_server(data: Path) -> None:
    assert bodies(data, GROUP) == ["for bob alone"]
    assert run_json("audit", data)["findings"] == []
    with serving(data):
        send(data, "bob", "ann", "and back")
    assert bodies(data, GROUP) == ["for bob alone", "and back"]
    assert run_json("audit", data)["findings"] == []
    assert json.loads((data / "format").read_text())["version"] == 2
    with tables(data) as connection:
        for (wrapped,) in connection.execute("SELECT wrapped_key FROM conversation"):
            assert is_bound(wrapped)
        assert connection.execute("SELECT min(length(mac)) FROM member").fetchone() == (16,)


def test_keys_are_rotated_in_it_before_any_server_ran(data: Path) -> None:
    assert run_json("keys", "rotate", data)["kek"] == 2
    with serving(data):
        pass
    assert bodies(data, GROUP) == ["for bob alone"]
    assert run_json("audit", data)["findings"] == []


def test_a_member_who_is_put_into_the_tables_is_none_and_the_audit_names_him(data: Path) -> None:
    with serving(data):
        pass
    with tables(data) as connection:
        connection.execute(
            "INSERT INTO member SELECT key, 'eve', visible_from, digest_before, countable_before,"
            " left_at, left_digest, left_countable, marker, marker_countable, mac FROM member"
            " WHERE user = 'ann'"
        )
    with serving(data):
        done = run("send", "--data", data, "--user", "eve", "--conversation", GROUP, "let me in")
        assert done.returncode != 0
    codes = {finding["code"] for finding in run_json_unsound("audit", data)["findings"]}
    assert {"mac_wrong", "members_wrong"} <= codes


def test_a_key_that_is_moved_to_another_conversation_opens_nothing(data: Path) -> None:
    """Neither one of this version, nor a stolen one of the first."""
    with tables(data) as connection:
        (stolen,) = connection.execute(
            "SELECT wrapped_key FROM conversation WHERE id = ?", (GROUP,)
        ).fetchone()
    with serving(data):
        pass
    with tables(data) as connection:
        (bound,) = connection.execute(
            "SELECT wrapped_key FROM conversation WHERE id = ?", (GROUP,)
        ).fetchone()
    for key in (bound, stolen):
        with tables(data) as connection:
            connection.execute("UPDATE conversation SET wrapped_key = ? WHERE id = ?", (key, MINE))
        findings = run_json_unsound("audit", data)["findings"]
        assert ("keyring_wrong", MINE) in {(f["code"], f["where"]) for f in findings}


def run_json_unsound(*arguments: object) -> dict[str, list[dict[str, str]]]:
    """What a command says that ends with an error on purpose."""
    done = run(*arguments, "--json")
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)
