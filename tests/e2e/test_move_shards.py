"""A range of shards moves to a new database as docs/howto/run-a-cluster.md says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from clusters import running
from command_line import run, run_json
from databases import database, everywhere

from trunkline.adapters.mysql.settings import Settings
from trunkline.config import load
from trunkline.core.ids import shard_hash
from trunkline.model import UserId
from trunkline.replay.demonstration import SAMPLE

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
    settings = load(config, {}, {}).mysql
    old = settings.databases[1].database
    new = f"{old}_moved"
    after = config.with_name("after.toml")
    after.write_text(moved_settings(config.read_text(), old, new))
    asyncio.run(everywhere(settings, f"DROP DATABASE IF EXISTS {new}", f"CREATE DATABASE {new}"))
    try:
        assert run("migrate", "--config", after).returncode == 0
        asyncio.run(move(settings, old, new))
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
    finally:
        asyncio.run(everywhere(settings, f"DROP DATABASE {new}"))


def moved_settings(text: str, old: str, new: str) -> str:
    """The settings with the third database on the second one's server."""
    place = text[text.rindex("[[mysql.databases]]") : text.index("[redis]")]
    kept = place.replace("1023]", f"{FIRST - 1}]")
    third = place.replace("[512,", f"[{FIRST},").replace(f'"{old}"', f'"{new}"')
    return text.replace(place, kept + third)


async def move(settings: Settings, old: str, new: str) -> None:
    """Copies the range's rows, then takes them, and the shards, from the old database."""
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
