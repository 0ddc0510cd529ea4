"""Keys of a data directory: rotated, retired and destroyed while no server runs on it."""

from __future__ import annotations

import json
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from command_line import run, run_json, serving

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.client import Client
from trunkline.errors import ConversationShredded, TrunklineError
from trunkline.model import UserId

SINGLE = "single:3:ann3:bob"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with many conversations; no server runs on it any more."""
    path = tmp_path / "chat"
    with serving(path):
        for number in range(4):
            send(path, "ann", "bob", f"hello {number}")
            send(path, "ann", f"other{number}", "hi")
    return path


def send(path: Path, user: str, to: str, body: str) -> None:
    assert run("send", "--data", path, "--user", user, "--to", to, body).returncode == 0


def bodies(path: Path) -> list[str]:
    lines = run("export", path, SINGLE).stdout.splitlines()
    return [entry["text"] for entry in map(json.loads, lines) if "text" in entry]


def wrapped_key(path: Path) -> bytes:
    with sqlite3.connect(path / "tables.db") as tables:
        row = tables.execute("SELECT wrapped_key FROM conversation WHERE id = ?", (SINGLE,))
        return bytes(row.fetchone()[0])


def test_a_rotation_wraps_every_conversation_anew_and_the_old_key_can_go(data: Path) -> None:
    expected = bodies(data)
    assert run_json("keys", "rotate", data) == {"kek": 2, "rewrapped": 5}
    keyring = data / "keyring.json"
    assert stat.S_IMODE(keyring.stat().st_mode) == 0o600
    status = run_json("keys", "status", data)
    assert (status["keyring"], status["current"], status["agreed"]) == ([1, 2], 2, 2)
    assert status["conversations"] == {"tables.db": {"2": 5}}
    assert run_json("keys", "retire", "1", data)["kek"] == 1
    assert list(json.loads(keyring.read_text())["keys"]) == ["2"]
    assert bodies(data) == expected
    assert run_json("audit", data)["findings"] == []
    with serving(data):
        send(data, "ann", "bob", "after")
        send(data, "ann", "another", "after")
    assert bodies(data) == [*expected, "after"]
    assert run_json("keys", "status", data)["conversations"] == {"tables.db": {"2": 6}}


def test_a_rotation_that_was_cut_short_goes_on_with_the_same_key(data: Path) -> None:
    """Wherever: the key was added, the sentinel replaced, some conversations wrapped anew."""
    before = {name: (data / name).read_bytes() for name in ("tables.db", "cold.db", "sentinel")}
    assert run_json("keys", "rotate", data)["kek"] == 2
    for lost in (["tables.db", "cold.db"], ["tables.db", "cold.db", "sentinel"], ["tables.db"]):
        for name in lost:
            (data / name).write_bytes(before[name])
        assert run("keys", "retire", "1", data).returncode == 3
        assert run_json("keys", "rotate", data) == {"kek": 2, "rewrapped": 5}
        assert run_json("audit", data)["findings"] == []


def test_a_rotation_adds_a_key_only_where_the_one_before_came_to_its_end(data: Path) -> None:
    """Nothing was left to wrap, but the keyring had not heard of it: that end comes first."""
    before = json.loads((data / "keyring.json").read_text())
    assert run_json("keys", "rotate", data)["kek"] == 2
    keyring = json.loads((data / "keyring.json").read_text())
    (data / "keyring.json").write_text(json.dumps(keyring | {"current": before["current"]}))
    assert run_json("keys", "rotate", data) == {"kek": 2}
    assert json.loads((data / "keyring.json").read_text()) == keyring
    assert run_json("keys", "rotate", data) == {"kek": 3, "rewrapped": 5}


def test_the_status_counts_what_is_behind(data: Path) -> None:
    tables = (data / "tables.db").read_bytes()
    run_json("keys", "rotate", data)
    assert run_json("keys", "status", data)["behind"] == 0
    (data / "tables.db").write_bytes(tables)
    assert run_json("keys", "status", data)["behind"] == 5
    shown = run("keys", "status", data)
    assert "`keys rewrap` takes them along" in shown.stdout


def test_a_shredded_conversation_leaves_no_wrapped_key_in_any_file(data: Path) -> None:
    """And is refused with its code, by export, by a send, whatever the tier."""
    destroyed = wrapped_key(data)
    holding = [file for file in data.iterdir() if destroyed in file.read_bytes()]
    assert data / "tables.db" in holding
    assert run("keys", "shred", SINGLE, data, input="n\n").returncode == 130
    assert wrapped_key(data) == destroyed
    done = run("keys", "shred", SINGLE, data, input="y\n")
    assert done.returncode == 0, done.stderr
    assert not [file for file in data.iterdir() if destroyed in file.read_bytes()]
    report = run_json("audit", data)
    assert (report["findings"], report["shredded"], report["entries"]) == ([], 1, 13)
    exported = run("export", data, SINGLE)
    assert exported.returncode == 3
    assert exported.stderr.startswith("trunkline: conversation_shredded: ")
    with serving(data):
        refused = run("send", "--data", data, "--user", "bob", "--to", "ann", "hello")
        assert refused.returncode == 3
        assert "conversation_shredded" in refused.stderr
        send(data, "ann", "other1", "still here")
    assert run_json("audit", data)["findings"] == []


def test_keys_are_not_changed_under_a_running_server(data: Path) -> None:
    with serving(data):
        for command in (["rotate"], ["retire", "1"], ["shred", SINGLE, "--yes"], ["status"]):
            done = run("keys", *command, data)
            assert done.returncode == 3
            assert done.stderr.startswith("trunkline: data_dir_locked: ")


def test_a_directory_must_be_named(tmp_path: Path) -> None:
    assert run("keys", "status").returncode == 2
    assert run("keys", "rotate", tmp_path / "absent").returncode == 3
    assert not (tmp_path / "absent").exists()


def client_of(path: Path, url: str, endpoint: str, **options: object) -> Client:
    """Bob's."""
    keys = TokenKeys.load(path / "tokens.json")
    token = mint(keys, UserId("bob"), now_ms=time.time_ns() // 1_000_000, ttl_seconds=3_600.0)
    return Client(url, token=token, user="bob", endpoint=endpoint, **options)  # type: ignore[arg-type]


async def test_an_endpoint_knows_for_good_that_a_conversation_was_shredded(
    data: Path, tmp_path: Path
) -> None:
    """What it held stays; what it had still to send is refused; nothing is asked for again."""
    store = tmp_path / "phone.db"
    with serving(data) as told:
        url = told["url"]
        async with client_of(data, url, "phone", store=store) as bob:
            await bob.wait_synced()
            assert not bob.conversation(SINGLE).shredded
    async with client_of(data, url, "phone", store=store) as bob:
        await bob.post(SINGLE, "too late")
    run_json("keys", "shred", SINGLE, data, "--yes")
    reports: list[TrunklineError] = []
    with serving(data) as told:
        url = told["url"]
        async with client_of(data, url, "phone", store=store, report=reports.append) as bob:
            await bob.wait_synced()
            await bob.wait_sent()
            info = bob.conversation(SINGLE)
            assert (info.shredded, info.last, info.head) == (True, 5, 5)
            assert len(await bob.history(SINGLE)) == 5
            with pytest.raises(ConversationShredded):
                await bob.send(SINGLE, "again")
            assert (await bob.send_to("dan", "and the rest goes on")).seq == 2
            assert [type(error) for error in reports] == [ConversationShredded] * len(reports)
            assert len(reports) == 2, "one for the conversation, one for the send that waited"
        async with client_of(data, url, "new", report=reports.append) as bob:
            await bob.wait_synced()
            info = bob.conversation(SINGLE)
            assert (info.shredded, info.last, info.head) == (True, 0, 0)
        async with client_of(data, url, "phone", store=store, report=reports.append) as bob:
            await bob.wait_synced()
            assert bob.conversation(SINGLE).shredded
        assert len(reports) == 3, "a copy that knows is told nothing new"
    async with client_of(data, url, "phone", store=store) as bob:
        assert [i.conversation for i in bob.conversations() if i.shredded] == [SINGLE]
