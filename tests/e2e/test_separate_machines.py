"""Two machines of one cluster: each has a node's directory of its own, with copies of the keys."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cluster_process import ClusterProcess
from clusters import running
from command_line import SECONDS, run, run_json, wait_for

from trunkline.client import Client
from trunkline.errors import Unauthenticated

KEYS = ("keyring.json", "tokens.json")
REFRESH_SECONDS = 0.5


class Machine:
    """One machine's settings and directory, and the cluster's processes on it."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.node = folder / "node"
        self.config = folder / "cluster.toml"
        folder.mkdir(exist_ok=True)
        self.config.write_text(settings, encoding="utf-8")
        self.process: ClusterProcess

    def copy_from(self, other: Machine, *names: str) -> None:
        """As an operator copies files from machine to machine."""
        self.node.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            shutil.copy(other.node / name, self.node / name)

    def token(self, user: str) -> str:
        return str(run_json("token", self.node, user)["token"])

    def client(self, user: str, token: str, endpoint: str = "phone") -> Client:
        """A client at this machine's workers."""
        return Client(
            self.process.told["url"], token=token, user=user, endpoint=endpoint,
            reconnect_first_seconds=0.05, reconnect_most_seconds=0.2,
        )  # fmt: skip


def two_machines(config: Path) -> tuple[Machine, Machine]:
    """The first one migrated; the other has nothing yet."""
    quick = f"[services]\nkeys_refresh_seconds = {REFRESH_SECONDS}"
    settings = config.read_text(encoding="utf-8").replace("[services]", quick)
    first = Machine(config.parent, settings)
    other = Machine(config.parent / "other", settings.replace("/node", "/other/node"))
    assert run("migrate", "--config", first.config).returncode == 0
    return first, other


@contextmanager
def serving(*machines: Machine) -> Iterator[None]:
    with ExitStack() as stack:
        for machine in machines:
            machine.process = stack.enter_context(running(machine.config))
        yield


async def holds(client: Client, conversation: str, body: str) -> None:
    """Waits until the newest entry of a copy is this one."""
    async with asyncio.timeout(SECONDS):
        async for message in client.messages(from_start=True, own=True):
            if (message.conversation, message.body) == (conversation, body):
                return


async def test_pushes_and_tokens_cross_between_machines(config: Path, tmp_path: Path) -> None:
    """I5, I14: what one machine's worker commits is pushed by the other's."""
    first, other = two_machines(config)
    other.copy_from(first, *KEYS)
    with serving(first, other):
        assert first.process.told["pid"] != other.process.told["pid"]
        async with (
            first.client("ann", other.token("ann")) as ann,
            other.client("bob", first.token("bob")) as bob,
        ):
            await ann.create("tea", ["bob"])
            await ann.send("tea", "warm")
            await holds(bob, "tea", "warm")
            for turn in range(20):
                for client, reader in ((ann, bob), (bob, ann)):
                    body = f"{client.user} {turn}"
                    await client.send("tea", body)
                    await holds(reader, "tea", body)
            for client in (ann, bob):
                assert client.counters.pushed >= 20
                assert client.counters.gaps_seen == 0
                assert client.proof("tea").last == 42
            assert ann.proof("tea") == bob.proof("tea")
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        (stranger / "tokens.json").write_text(
            (first.node / "tokens.json").read_text().replace('"secret": "', '"secret": "AAAA')
        )
        forged = str(run_json("token", stranger, "ann")["token"])
        async with other.client("ann", forged, "stranger") as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.wait_synced()
    assert run_json("audit", "--config", other.config)["findings"] == []


def test_a_further_machine_makes_no_keys_of_its_own(config: Path) -> None:
    """Its tokens would be refused by the others, and theirs by it."""
    first, other = two_machines(config)
    for command in ("migrate", "serve"):
        done = run(command, "--config", other.config)
        assert (done.returncode, "keyring_missing" in done.stderr) == (3, True)
        assert not (other.node / "keyring.json").exists()
    other.copy_from(first, "keyring.json")
    assert run("migrate", "--config", other.config).returncode == 0
    done = run("serve", "--config", other.config)
    assert done.returncode == 3
    assert "copy them from a machine that has them" in done.stderr
    assert not (other.node / "tokens.json").exists()


async def test_a_new_key_that_reaches_a_machine_late_holds_up_nothing_for_good(
    config: Path,
) -> None:
    """I4, I12, I14: refused for now, or behind, until the keyring is copied; then as ever."""
    first, other = two_machines(config)
    other.copy_from(first, *KEYS)
    with serving(first, other):
        async with (
            first.client("ann", first.token("ann")) as ann,
            other.client("bob", first.token("bob")) as bob,
        ):
            await ann.create("tea", ["bob"])
            await ann.send("tea", "under the old key")
            await holds(bob, "tea", "under the old key")
            rotated = await asyncio.to_thread(run_json, "keys", "rotate", "--config", first.config)
            assert rotated["kek"] == 2
            await asyncio.sleep(3 * REFRESH_SECONDS)
            await ann.send("tea", "under the new key")
            posted = await bob.post("tea", "from the machine that lacks it")
            created = await bob.post(None, "so is this", to="dan")
            log = other.config.with_name("server.log")
            await asyncio.to_thread(wait_for, lambda: "packet_not_opened" in log.read_text())
            await asyncio.to_thread(wait_for, lambda: bob.counters.resent)
            other.copy_from(first, "keyring.json")
            async with asyncio.timeout(SECONDS):
                assert (await posted).seq == 4
                assert (await created).seq == 2
            await holds(bob, "tea", "under the new key")
            await holds(ann, "tea", "from the machine that lacks it")
            assert ann.proof("tea").digest == bob.proof("tea").digest
            assert ann.counters.digest_mismatches == bob.counters.digest_mismatches == 0
    assert run_json("keys", "rewrap", "--config", other.config)["kek"] == 2
    assert run_json("keys", "status", "--config", other.config)["behind"] == 0
    assert run_json("keys", "retire", "1", "--config", other.config)["kek"] == 1
    assert run_json("audit", "--config", other.config)["findings"] == []
