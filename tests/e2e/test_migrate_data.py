"""An embedded directory moves into a cluster: nothing is lost, doubled, or seen half."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from clusters import running
from command_line import run, run_json, serving, started
from databases import everywhere
from stored_directory import SETTINGS, USERS, Filler

from trunkline.adapters.jwt import TokenKeys
from trunkline.adapters.jwt.tokens import mint
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.sqlite import open_embedded
from trunkline.adapters.sqlite.inspect import Inspection
from trunkline.app.keys import open_sealer
from trunkline.client import Client
from trunkline.config import Config, load
from trunkline.core.holdings import Holdings
from trunkline.model import ConversationId, ConversationKey, Kind, UserId
from trunkline.replay.demonstration import SAMPLE

LINES = 300
GROUP = "moving"
ENDPOINTS = [("edbian", "phone"), ("edbian", "laptop"), ("jorell", "phone"), ("Bite", "phone")]
TABLES = (
    "conversation", "member", "message", "idempotency", "archive_task", "user_conversation",
    "endpoint_offset",
)  # fmt: skip
SMALL_GROUPS = 120
PATIENCE_SECONDS = 60


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose members came and went; the older half is archived and trimmed."""
    data = tmp_path / "d"
    program = Path(__file__).with_name("stored_directory.py")
    subprocess.run([sys.executable, str(program), str(data), "2000"], check=True)
    with serving(data):  # makes the token keys
        pass
    return data


@asynccontextmanager
async def endpoints(url: str, keys: Path, stores: Path) -> AsyncIterator[Sequence[Client]]:
    """The endpoints, each with its local store, once they have pulled what there is."""
    secrets = TokenKeys.load(keys)
    now_ms = time.time_ns() // 1_000_000
    async with asyncio.timeout(PATIENCE_SECONDS), AsyncExitStack() as stack:
        clients = []
        for user, endpoint in ENDPOINTS:
            token = mint(secrets, UserId(user), now_ms=now_ms, ttl_seconds=600)
            store = stores / f"{user}-{endpoint}.db"
            client = Client(url, token=token, user=user, endpoint=endpoint, store=store)
            clients.append(await stack.enter_async_context(client))
        for client in clients:
            await client.wait_synced()
        yield clients


def proofs(client: Client) -> dict[str, tuple[int, int, int]]:
    """First, last and digest of every copy."""
    return {
        info.conversation: (proof.first, proof.last, proof.digest)
        for info in client.conversations()
        for proof in (client.proof(info.conversation),)
    }


async def holds(client: Client, seq: int) -> None:
    """Waits until the copy of the group reaches an entry."""
    while all(i.conversation != GROUP or i.last < seq for i in client.conversations()):
        await asyncio.sleep(0.02)


async def test_endpoints_go_on_with_the_cluster_and_pull_only_what_is_new(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I2, I3, I6, I14: same tokens, same local stores, same ids."""
    monkeypatch.setenv("TRUNKLINE_SERVICES__NEWEST_GROUP", "60")
    data = tmp_path / "d"
    with serving(data) as server:
        run_json("replay", SAMPLE, "--limit", LINES, "--data", data, "--url", server["url"])
        async with endpoints(server["url"], data / "tokens.json", tmp_path) as clients:
            await clients[2].create(GROUP, ["edbian", "Bite"])
            sent = await clients[2].send(GROUP, "before the move", id="resent")
            for client in clients:
                await holds(client, sent.seq)
            before = [proofs(client) for client in clients]
    was = run_json("audit", data)
    assert was["findings"] == []

    report = run_json("migrate-data", data, "--config", config)

    assert report["mismatches"] == []
    told = ("conversations", "entries", "hot_entries", "segments", "members", "offsets")
    assert [report[name] for name in told] == [was[name] for name in told]
    assert run_json("audit", "--config", config)["findings"] == []
    assert (config.parent / "node" / "keyring.json").stat().st_mode & 0o77 == 0
    with running(config) as cluster:
        url, keys = cluster.told["url"], data / "tokens.json"
        async with endpoints(url, keys, tmp_path) as clients:
            assert [proofs(client) for client in clients] == before
            assert sum(client.counters.pulled + client.counters.pushed for client in clients) == 0
            assert (await clients[2].send(GROUP, "before the move", id="resent")).seq == sent.seq
            new = await clients[3].send(GROUP, "after the move")
            assert new.seq == sent.seq + 1
            for client in clients:
                while client.conversation(GROUP).last < new.seq:
                    await asyncio.sleep(0.02)
            assert len({proofs(client)[GROUP] for client in clients}) == 1
            assert sum(client.counters.digest_mismatches for client in clients) == 0
        again = run_json("replay", SAMPLE, "--limit", LINES, "--config", config)
    assert again["already_stored"] == again["messages"] == LINES
    assert again["endpoints_complete"] == again["endpoints"]
    now = run_json("audit", "--config", config)
    assert now["findings"] == []
    assert now["entries"] == was["entries"] + 1


@pytest.mark.timeout(300)
def test_a_move_that_is_killed_anywhere_goes_on_and_shows_nothing_half(
    tmp_path: Path, config: Path
) -> None:
    data = tmp_path / "d"
    asyncio.run(fill_small_groups(data))
    settings, random = load(config, {}, {}), Random(7)
    assert run("migrate-data", data, "--config", config, "--resume").returncode == 0
    whole = asyncio.run(there(settings))
    asyncio.run(forget_half(settings, whole))
    kept = len(asyncio.run(there(settings)))
    cut: set[int] = set()
    for _ in range(20):
        with started("migrate-data", data, "--config", config, "--resume") as process:
            while process.poll() is None and len(asyncio.run(there(settings))) == kept:
                time.sleep(random.uniform(0, 0.02))
            process.kill()
        keys = asyncio.run(there(settings))
        asyncio.run(check_whole(data, settings, keys))
        kept = len(keys)
        if kept == len(whole):
            break
        cut.add(kept)
    assert cut, "every run came to its end before it was killed"
    report = run_json("migrate-data", data, "--config", config, "--resume")
    assert (report["kept"], report["mismatches"]) == (kept, [])
    assert run_json("audit", "--config", config)["findings"] == []


def test_a_second_move_and_a_cluster_that_went_on_are_refused(
    directory: Path, config: Path
) -> None:
    assert run("migrate-data", directory, "--config", config).returncode == 0
    done = run("migrate-data", directory, "--config", config)
    assert done.returncode == 3
    assert "target_not_empty" in done.stderr
    assert run_json("migrate-data", directory, "--config", config, "--resume")["kept"] == 7
    update = "UPDATE conversation SET head = head + 1"
    asyncio.run(everywhere(load(config, {}, {}).mysql, update))
    done = run("migrate-data", directory, "--config", config, "--resume")
    assert done.returncode == 3
    assert "target_not_empty" in done.stderr


def test_what_differs_on_the_other_side_is_named(directory: Path, config: Path) -> None:
    assert run("migrate-data", directory, "--config", config).returncode == 0
    asyncio.run(
        everywhere(
            load(config, {}, {}).mysql,
            "UPDATE message SET sealed = CONCAT(sealed, 'x') WHERE seq = 300",
            "DELETE FROM idempotency WHERE seq = 300",
        )
    )
    done = run("migrate-data", directory, "--config", config, "--resume", "--json")
    assert done.returncode == 1
    mismatches = json.loads(done.stdout)["mismatches"]
    assert len(mismatches) == 12
    assert any(
        line.startswith("room-0: ") and "entries of other bytes" in line for line in mismatches
    )
    assert any("client message ids" in line for line in mismatches)


@pytest.mark.parametrize(
    ("file", "code"), [("keyring.json", "keyring_wrong"), ("tokens.json", "token_keys_wrong")]
)
def test_a_node_with_other_keys_is_refused(
    directory: Path, config: Path, file: str, code: str
) -> None:
    assert run("migrate", "--config", config).returncode == 0
    node = config.parent / "node"
    for name in {"keyring.json", "tokens.json"} - {file}:
        shutil.copy(directory / name, node / name)
    before = (node / file).read_bytes()
    done = run("migrate-data", directory, "--config", config)
    assert done.returncode == 3
    assert f"trunkline: {code}: " in done.stderr
    assert (node / file).read_bytes() == before
    assert asyncio.run(there(load(config, {}, {}))) == set()


def test_a_cluster_of_another_keyring_is_refused_before_anything_is_copied(
    directory: Path, config: Path
) -> None:
    assert run("migrate", "--config", config).returncode == 0
    node = config.parent / "node"
    shutil.rmtree(node)
    done = run("migrate-data", directory, "--config", config)
    assert done.returncode == 3
    assert "trunkline: keyring_wrong: " in done.stderr
    assert not node.exists()


def test_a_directory_that_is_served_is_refused(directory: Path, config: Path) -> None:
    with serving(directory):
        done = run("migrate-data", directory, "--config", config)
    assert done.returncode == 3
    assert "trunkline: data_dir_locked: " in done.stderr


async def fill_small_groups(data: Path) -> None:
    """Many small conversations: a kill meets some of them moved and some not."""
    sealer = open_sealer(data)
    async with open_embedded(data, SETTINGS, SystemClock()) as stores:
        filler = Filler(stores, sealer)
        for number in range(SMALL_GROUPS):
            room = ConversationId(f"small-{number}")
            await filler.append(
                filler.draft(
                    room, USERS[0], "create", Kind.CREATED, users=tuple(USERS[:3]),
                    name="Small", fresh=filler.fresh(room),
                )
            )  # fmt: skip
            await filler.append(filler.draft(room, USERS[1], "m1", Kind.MESSAGE, body="hello"))
        await filler.archive()


async def there(config: Config) -> set[ConversationKey]:
    """The conversations that anybody could see in the databases."""
    answers = await everywhere(config.mysql, "SELECT ckey FROM conversation")
    return {ConversationKey(key) for rows in answers for (key,) in rows}


async def forget_half(config: Config, keys: set[ConversationKey]) -> None:
    """Puts the databases back to where a move was under way."""
    half = ",".join(map(str, sorted(keys)[len(keys) // 2 :]))
    for table in TABLES:
        await everywhere(config.mysql, f"DELETE FROM {table} WHERE ckey IN ({half})")


async def check_whole(data: Path, config: Config, keys: set[ConversationKey]) -> None:
    """What is there is there with all its members, entries and client message ids."""
    with Inspection(data) as source:
        async with MysqlInspection(config.mysql) as target:
            for key in keys:
                sides = []
                for side in (source.hot, target):
                    found = Holdings()
                    found.add_members(await side.members(key))
                    async for entries in side.entries(key):
                        found.add("entries", entries)
                    async for known in side.known_ids(key):
                        found.add("ids", known)
                    found.add("lists", await side.listings(key))
                    sides.append(found)
                assert list(sides[0].differences(sides[1])) == []
