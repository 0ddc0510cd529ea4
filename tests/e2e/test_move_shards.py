"""A range of shards moves to a new database as docs/howto/run-a-cluster.md says."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clusters import running
from command_line import run, run_json, wait_for
from databases import database, everywhere

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.adapters.mysql.settings import Settings
from trunkline.client import Client
from trunkline.client.link import Link, Receiver
from trunkline.client.websocket import WebSocketDialer
from trunkline.config import load
from trunkline.core.ids import shard_hash
from trunkline.errors import TrunklineError
from trunkline.model import UserId
from trunkline.replay.demonstration import SAMPLE
from trunkline.wire.encoding import Encoding

LINES = 200
FIRST = 768
"""The first shard that moves; up to the last one, 1023."""
OF_CONVERSATIONS = ("conversation", "message", "idempotency", "member", "outbox", "archive_task")
OF_USERS = ("user_conversation", "endpoint_offset", "user_version")


def test_a_range_moves_to_a_new_database_and_its_old_one_takes_nothing_more(config: Path) -> None:
    """I1, I6, I11, I14, with everything stopped meanwhile."""
    assert run("migrate", "--config", config).returncode == 0
    with running(config):
        run_json("replay", SAMPLE, "--limit", LINES, "--config", config)
    before = run_json("audit", "--config", config)
    with moving(config) as (after, settings, new):
        move(settings, new)
        report = run_json("audit", "--config", after)
        assert report["findings"] == []
        counted = ("entries", "conversations", "members", "listings", "offsets", "known_ids")
        assert [report[name] for name in counted] == [before[name] for name in counted]
        with running(after):
            again = run_json("replay", SAMPLE, "--limit", 2 * LINES, "--config", after)
        assert again["already_stored"] == LINES
        assert again["endpoints_complete"] == again["endpoints"]
        assert run_json("audit", "--config", after)["findings"] == []
        assert moved_rows(load(after, {}, {}).mysql, new) > 0
        late = run("serve", "--config", config)
        assert late.returncode == 3
        assert "trunkline: store_not_migrated: " in late.stderr


async def test_a_worker_that_was_forgotten_loses_nothing_and_sends_its_clients_on(
    config: Path,
) -> None:
    """I4, I6, I11, I14: it refuses what it does not hold any more, serves the rest, and says so."""
    assert run("migrate", "--config", config).returncode == 0
    gone, stays = (_name(in_range) for in_range in (True, False))
    lost: list[TrunklineError] = []
    with running(config) as forgotten, moving(config) as (after, settings, new):
        shutil.copytree(config.parent / "node", config.parent / "other")
        after.write_text(after.read_text().replace("/node", "/other"))
        dialer = Elsewhere(forgotten.told["url"])
        async with client_of(config, _name(True), dialer, lost) as ann:
            for group in (gone, stays):
                await ann.create(group, ["bob"])
                await ann.send(group, "before")
            await asyncio.to_thread(move, settings, new)
            log = config.parent / "server.log"
            await asyncio.to_thread(wait_for, lambda: log.read_text().count("shards_gone") >= 2)
            lost.clear()
            posted = await ann.post(gone, "behind")
            assert (await ann.send(stays, "beside")).seq == 3
            with running(after) as cluster:
                dialer.url = cluster.told["url"]
                assert (await posted).seq == 3
                assert {error.code for error in lost} <= {"shard_moved", "unreachable"}
                async with client_of(after, "bob", dialer, lost) as bob:
                    await bob.wait_synced()
                    for group, last in ((gone, "behind"), (stays, "beside")):
                        assert (await bob.history(group))[-1].body == last
                        await bob.mark(group, 3)
                    assert bob.counters.digest_mismatches == 0
        assert run_json("audit", "--config", after)["findings"] == []


class Elsewhere:
    """Dials what `url` says by then, as a proxy chooses a worker."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        return await WebSocketDialer(self.url).dial(receiver, encoding)


def client_of(config: Path, user: str, dialer: Elsewhere, lost: list[TrunklineError]) -> Client:
    keys = TokenKeys.load(load(config, {}, {}).data_path / "tokens.json")
    token = mint(keys, UserId(user), now_ms=time.time_ns() // 1_000_000, ttl_seconds=3_600.0)
    return Client(
        "", token=token, user=user, endpoint="phone", dialer=dialer, report=lost.append,
        reconnect_first_seconds=0.05,
    )  # fmt: skip


def _name(in_range: bool) -> str:
    """A name whose shard moves, or does not."""
    names = (f"name{number}" for number in itertools.count())
    return next(name for name in names if (shard_hash(UserId(name)) >= FIRST) == in_range)


@contextmanager
def moving(config: Path) -> Iterator[tuple[Path, Settings, str]]:
    """The new settings, the old ones of the databases, and the new database's name; it has
    tables and shards.
    """
    settings = load(config, {}, {}).mysql
    old = settings.databases[1].database
    new = f"{old}_moved"
    after = config.with_name("after.toml")
    after.write_text(moved_settings(config.read_text(), old, new))
    made = (f"DROP DATABASE IF EXISTS {new}", f"CREATE DATABASE {new}")
    on_a_loop_of_its_own(everywhere(settings, *made))
    try:
        assert run("migrate", "--config", after).returncode == 0
        yield after, settings, new
    finally:
        on_a_loop_of_its_own(everywhere(settings, f"DROP DATABASE {new}"))


def moved_settings(text: str, old: str, new: str) -> str:
    """The settings with the third database on the second one's server."""
    place = text[text.rindex("[[mysql.databases]]") : text.index("[redis]")]
    kept = place.replace("1023]", f"{FIRST - 1}]")
    third = place.replace("[512,", f"[{FIRST},").replace(f'"{old}"', f'"{new}"')
    return text.replace(place, kept + third)


def on_a_loop_of_its_own(work: Coroutine[Any, Any, object]) -> None:
    """Runs it to its end, whatever loop this thread has."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def move(settings: Settings, new: str) -> None:
    """Copies the range's rows, then takes them, and the shards, from the old database."""
    on_a_loop_of_its_own(_move(settings, settings.databases[1].database, new))


async def _move(settings: Settings, old: str, new: str) -> None:
    first_key = FIRST << 54
    async with database(settings, 1) as source:
        users: set[UserId] = set()
        for table in OF_USERS:
            rows = await source.query(f"SELECT DISTINCT user FROM {table}")
            users |= {UserId(user.decode()) for (user,) in rows}
        named = [f"x'{user.encode().hex()}'" for user in users if shard_hash(user) >= FIRST]
        conditions = [(table, f"ckey >= {first_key}") for table in OF_CONVERSATIONS]
        conditions += [(table, f"user IN ({','.join(named)})") for table in OF_USERS]
        statements: Sequence[str] = [
            *(f"INSERT INTO {new}.{t} SELECT * FROM {old}.{t} WHERE {c}" for t, c in conditions),
            f"DELETE FROM shard WHERE shard >= {FIRST}",
            *(f"DELETE FROM {table} WHERE {condition}" for table, condition in conditions),
        ]
        for text in statements:
            await source.query(text)


def moved_rows(settings: Settings, new: str) -> int:
    """How many conversations the new database holds."""
    number = [place.database for place in settings.databases].index(new)

    async def count() -> int:
        async with database(settings, number) as opened:
            ((found,),) = await opened.query("SELECT COUNT(*) FROM conversation")
        return int(found)

    return asyncio.run(count())
