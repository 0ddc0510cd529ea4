"""Keys of a cluster: replaced while everybody sends, retired, destroyed; what others then see."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from clusters import running
from command_line import SECONDS, run, run_json, started
from databases import everywhere

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.client import Client
from trunkline.config import load
from trunkline.core.envelope import wrapped_header
from trunkline.core.ids import single_conversation_id
from trunkline.errors import ConversationShredded, TrunklineError
from trunkline.model import UserId

USERS = [f"user{number}" for number in range(8)]
GROUP = "everyone"
REFRESH_SECONDS = 0.5
MANY = 600
"""Conversations enough to kill a rotation among them."""


@pytest.fixture
def quick(config: Path) -> Path:
    """Settings whose workers learn of changed keys within half a second; migrated."""
    text = config.read_text(encoding="utf-8")
    setting = f"[services]\nkeys_refresh_seconds = {REFRESH_SECONDS}"
    config.write_text(text.replace("[services]", setting), encoding="utf-8")
    assert run("migrate", "--config", config).returncode == 0
    return config


def node(config: Path) -> Path:
    return config.parent / "node"


def client_of(config: Path, url: str, user: str, endpoint: str, **options: object) -> Client:
    keys = TokenKeys.load(node(config) / "tokens.json")
    token = mint(keys, UserId(user), now_ms=time.time_ns() // 1_000_000, ttl_seconds=3_600.0)
    return Client(
        url, token=token, user=user, endpoint=endpoint, reconnect_first_seconds=0.05,
        reconnect_most_seconds=0.2, **options,
    )  # fmt: skip


class Sender:
    """Sends without pause, now and then to somebody new; remembers what was acknowledged."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.acked: dict[tuple[str, int], str] = {}

    async def send(self) -> None:
        for number in itertools.count():
            body = f"{self.client.user} says {number}"
            if number % 2:
                sent = await self.client.send(GROUP, body)
            else:
                peer = f"new{number}" if number % 16 == 0 else f"peer{number % 6}"
                sent = await self.client.send_to(peer, body)
            self.acked[sent.conversation, sent.seq] = body


@asynccontextmanager
async def sending(config: Path, url: str) -> AsyncIterator[Sequence[Sender]]:
    """All users send for as long as the context lasts; their sends fail for nobody."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client_of(config, url, user, "phone")) for user in USERS
        ]
        await clients[0].create(GROUP, USERS[1:])
        senders = [Sender(client) for client in clients]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sender.send()) for sender in senders]
            yield senders
            for task in tasks:
                task.cancel()


async def command(*arguments: object) -> object:
    return await asyncio.to_thread(run_json, *arguments)


async def all_readable(config: Path, url: str, senders: Sequence[Sender], endpoint: str) -> None:
    """A new endpoint of each user pulls everything and finds what was acknowledged."""
    for sender in senders:
        async with client_of(config, url, sender.client.user, endpoint) as reader:
            await reader.wait_synced()
            assert reader.counters.digest_mismatches == 0
            bodies = {
                (message.conversation, message.seq): message.body
                for info in reader.conversations()
                for message in await reader.history(info.conversation)
            }
            lost = {at: body for at, body in sender.acked.items() if bodies.get(at) != body}
            assert not lost, sorted(lost.items())[:3]


def wrapped(config: Path) -> dict[int, int]:
    """Conversations by KEK, of both databases."""
    summed: dict[int, int] = {}
    for counted in run_json("keys", "status", "--config", config)["conversations"].values():
        for kek, count in counted.items():
            summed[int(kek)] = summed.get(int(kek), 0) + count
    return summed


async def test_keys_are_rotated_and_retired_while_everybody_sends(quick: Path) -> None:
    """I4, I12, I14: two workers, two rotations at once, no send refused; then with the old key
    gone everything opens after a restart.
    """
    with running(quick) as cluster:
        async with sending(quick, cluster.told["url"]) as senders:
            await asyncio.sleep(1.0)
            assert set(await asyncio.to_thread(wrapped, quick)) == {1}
            at_once = [command("keys", "rotate", "--config", quick) for _ in range(2)]
            rotated = await asyncio.gather(*at_once)
            assert sum(done["rewrapped"] for done in rotated) > len(USERS)
            before = sum(len(sender.acked) for sender in senders)
            await asyncio.sleep(3 * REFRESH_SECONDS)
            newest = json.loads((node(quick) / "keyring.json").read_text())["current"]
            await command("keys", "rewrap", "--config", quick)
            for old in range(1, newest):
                await command("keys", "retire", "--config", quick, old)
            await asyncio.sleep(1.0)
            assert sum(len(sender.acked) for sender in senders) > before
        assert set(wrapped(quick)) == {newest}
        await all_readable(quick, cluster.told["url"], senders, "tablet")
    assert list(json.loads((node(quick) / "keyring.json").read_text())["keys"]) == [str(newest)]
    assert run_json("audit", "--config", quick)["findings"] == []
    with running(quick) as cluster:
        await all_readable(quick, cluster.told["url"], senders, "desk")


async def wrapped_with(config: Path, kek: int) -> int:
    """How many conversations a KEK wraps."""
    counted = (
        "SELECT COUNT(*) FROM conversation "
        f"WHERE LEFT(wrapped_key, 5) = x'{wrapped_header(kek).hex()}'"
    )
    answers = await everywhere(load(config, {}, {}).mysql, counted)
    return sum(count for ((count,),) in answers)


async def test_a_rotation_that_is_killed_in_the_midst_of_it_is_finished_by_the_next(
    quick: Path, rounds: int
) -> None:
    """I4, I12, I14: kill -9, some conversations wrapped anew and some not, while everybody sends;
    by turns `rewrap` and `rotate` take the rest along, under the same key.
    """
    kills = max(1, rounds // 3)
    with running(quick) as cluster:
        async with sending(quick, cluster.told["url"]) as senders:
            client = senders[0].client
            await asyncio.gather(*(client.send_to(f"many{n}", "hello") for n in range(MANY)))
            for kek in range(2, 2 + kills):
                least = 1 + (kek - 2) * MANY // (2 * kills)
                with started("keys", "rotate", "--config", quick) as rotation:
                    async with asyncio.timeout(SECONDS):
                        while await wrapped_with(quick, kek) < least:
                            assert rotation.poll() is None
                    rotation.kill()
                status = await command("keys", "status", "--config", quick)
                assert status["agreed"] == status["keyring"][-1] == kek
                assert status["behind"] > 0
                again = "rotate" if kek % 2 else "rewrap"
                done = await command("keys", again, "--config", quick)
                assert done["kek"] == kek
                assert done["rewrapped"] > 0
                await asyncio.sleep(3 * REFRESH_SECONDS)  # from now on nobody creates under it
                await command("keys", "rewrap", "--config", quick)
                assert (await command("keys", "status", "--config", quick))["behind"] == 0
                await command("keys", "retire", "--config", quick, kek - 1)
        await all_readable(quick, cluster.told["url"], senders, "tablet")
    assert wrapped(quick).keys() == {1 + kills}
    assert run_json("audit", "--config", quick)["findings"] == []


async def archived(config: Path) -> None:
    """Waits until the archiver has copied everything."""
    settings = load(config, {}, {}).mysql
    behind = "SELECT COUNT(*) FROM conversation WHERE archived_up_to < head"
    async with asyncio.timeout(SECONDS):
        while any(count for ((count,),) in await everywhere(settings, behind)):
            await asyncio.sleep(0.1)


async def test_a_shredded_conversation_is_gone_in_every_tier_and_the_rest_goes_on(
    quick: Path,
) -> None:
    """What was archived, what was not, and what workers had open; syncs stay whole."""
    with running(quick) as cluster:
        url = cluster.told["url"]
        async with client_of(quick, url, "ann", "phone") as ann:
            await ann.create("tea", ["bob"], name="Tea")
            for number in range(100):
                await ann.send("tea", f"secret {number}")
                await ann.send_to("bob", f"hello {number}")
            await archived(quick)
            await ann.send("tea", "not archived yet")
            async with client_of(quick, url, "bob", "phone") as bob:
                await bob.wait_synced()
                assert len(await bob.history("tea")) == 102
                done = await command("keys", "shred", "tea", "--config", quick, "--yes")
                assert done == {"conversation": "tea", "entries": 102}
                for client in (ann, bob):
                    with pytest.raises(ConversationShredded):
                        await client.send("tea", "more")
                    assert client.conversation("tea").shredded
            reports: list[TrunklineError] = []
            async with client_of(quick, url, "bob", "new", report=reports.append) as bob:
                await bob.wait_synced()
                assert (bob.conversation("tea").last, bob.conversation("tea").shredded) == (0, True)
                single = single_conversation_id(UserId("ann"), UserId("bob"))
                assert len(await bob.history(single)) == 101
                assert {type(error) for error in reports} == {ConversationShredded}
                sent = await ann.send_to("bob", "still here")
                assert sent.seq == 102
                assert not bob.counters.digest_mismatches
            await archived_but_shredded(quick)
    report = run_json("audit", "--config", quick)
    assert report["findings"] == []
    assert report["shredded"] == 1
    assert run_json("keys", "status", "--config", quick)["shredded"] == 1
    again = run("keys", "shred", "nobody", "--config", quick, "--yes")
    assert again.returncode == 3
    assert again.stderr.startswith("trunkline: not_member: ")


async def archived_but_shredded(config: Path) -> None:
    """Waits until the archiver has nothing left to do, though it could not copy everything."""
    settings = load(config, {}, {}).mysql
    tasks = "SELECT COUNT(*) FROM archive_task"
    async with asyncio.timeout(SECONDS):
        while any(count for ((count,),) in await everywhere(settings, tasks)):
            await asyncio.sleep(0.1)
    rows = "SELECT id FROM conversation WHERE archived_up_to < head"
    behind = [row for answer in await everywhere(settings, rows) for row in answer]
    assert behind in ([], [(b"tea",)])


def test_a_machine_without_the_new_key_does_not_start_and_says_what_to_copy(quick: Path) -> None:
    old = (node(quick) / "keyring.json").read_bytes()
    assert run_json("keys", "add", "--config", quick)["kek"] == 2
    added = run("keys", "add", "--config", quick)
    assert added.returncode == 3
    assert "key_in_use" in added.stderr
    assert run_json("keys", "rotate", "--config", quick)["kek"] == 2
    assert run_json("keys", "rewrap", "--config", quick) == {"kek": 2}
    refused = run("keys", "retire", "2", "--config", quick)
    assert refused.returncode == 3
    assert "key_in_use" in refused.stderr
    (node(quick) / "keyring.json").write_bytes(old)
    done = run("serve", "--config", quick)
    assert done.returncode == 3
    assert "keyring_wrong" in done.stderr
    assert "copy the newest keyring" in done.stderr


def test_a_keyring_from_the_environment_is_printed_where_it_changes(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = node(quick) / "keyring.json"
    monkeypatch.setenv("TRUNKLINE_KEYRING__JSON", file.read_text())
    file.unlink()
    refused = run("keys", "rotate", "--config", quick)
    assert refused.returncode == 3
    assert "keys add" in refused.stderr
    added = run_json("keys", "add", "--config", quick)
    monkeypatch.setenv("TRUNKLINE_KEYRING__JSON", added["keyring"])
    rotated = run_json("keys", "rotate", "--config", quick)
    assert json.loads(rotated["keyring"])["current"] == 2
    monkeypatch.setenv("TRUNKLINE_KEYRING__JSON", rotated["keyring"])
    retired = run_json("keys", "retire", "1", "--config", quick)
    assert list(json.loads(retired["keyring"])["keys"]) == ["2"]
    monkeypatch.setenv("TRUNKLINE_KEYRING__JSON", retired["keyring"])
    assert run_json("keys", "status", "--config", quick)["keyring"] == [2]
    assert "json" not in run_json("config", "check", quick)["keyring"]
    assert not file.exists()
    monkeypatch.setenv("TRUNKLINE_KEYRING__FILE", str(file))
    both = run("keys", "status", "--config", quick)
    assert "config_invalid" in both.stderr
