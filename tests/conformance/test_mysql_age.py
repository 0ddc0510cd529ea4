"""Client message ids expire by a database's age, which no clock alone decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from databases import database, holding

from trunkline.adapters.mysql import age as ages
from trunkline.adapters.mysql import database as sessions
from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.literals import rows
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import MysqlStores, open_mysql
from trunkline.model import ConversationKey
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import known_seq_of

LOW = 5
"""A key of the first shard."""
DAY_SECONDS = 86_400


@asynccontextmanager
async def opened_with_clock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, days: int
) -> AsyncIterator[MysqlStores]:
    """The stores, for sessions of which the database's clock is wrong."""
    wrong = f"SET SESSION timestamp = UNIX_TIMESTAMP() + {days * DAY_SECONDS}"
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "_SESSION", (*sessions._SESSION, wrong))
        async with open_mysql(settings, SteppedClock()) as stores:
            yield stores


async def expire(stores: MysqlStores) -> int:
    return sum([await stores.upkeep.expire_step(one) for one in stores.shards.all for _ in "12"])


@pytest.mark.parametrize("days", [9, 30])
async def test_a_clock_that_is_ahead_for_seconds_forgets_no_id(
    days: int, settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6."""
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        async with opened_with_clock(settings, monkeypatch, days) as ahead:
            assert await expire(ahead) == 0
        (outcome,) = await writer.append(stores.hot, writer.create("g", "ann", "c"))
        assert known_seq_of(outcome) == 1


async def test_an_id_that_was_stored_by_a_clock_that_is_behind_lives_as_long(
    settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6."""
    async with open_mysql(settings, SteppedClock()) as stores:
        async with opened_with_clock(settings, monkeypatch, -9) as behind:
            await writer.append(behind.hot, writer.create("g", "ann", "c"))
        assert await expire(stores) == 0
        (outcome,) = await writer.append(stores.hot, writer.create("g", "ann", "c"))
        assert known_seq_of(outcome) == 1


async def test_an_age_moves_no_faster_than_time_whatever_the_clock_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ages, "_STEP_SECONDS", 0.0)
    async with database(settings) as opened:
        age = Age(opened)
        await age.look()
        started, now = age.ms, asyncio.get_running_loop().time()
        await opened.query(
            f"UPDATE deployment SET value = '{started - 2 * DAY_SECONDS * 1000}' WHERE name = 'age'"
        )
        for _ in range(20):
            await age.look()
            await asyncio.sleep(0.01)
        passed_ms = 1000 * (asyncio.get_running_loop().time() - now)
        moved = age.ms - (started - 2 * DAY_SECONDS * 1000)
        assert 100 < moved <= 1.1 * passed_ms


async def test_only_old_client_message_ids_are_forgotten(settings: Settings) -> None:
    """I6: what is younger than the settings say stays, whatever stands around it."""
    keys = [3, 4, LOW, 1 << 40, (1 << 54) - 1]
    counts = [10, 6_000, 5_001, 2_000, 300]
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        for key, count in zip(keys, counts, strict=True):
            for start in range(0, count, 1_000):
                values = rows(
                    (key, "ann", f"{i:06}", i) for i in range(start, min(count, start + 1_000))
                )
                columns = "(ckey, sender, client_message_id, seq)"
                await opened.query(f"INSERT INTO idempotency {columns} VALUES {values}")
        kept_minutes = settings.resend_days * 1_440
        for remainder, minutes in ((0, kept_minutes - 5), (1, kept_minutes + 5)):
            await opened.query(
                f"UPDATE idempotency SET stored_at = CURRENT_TIMESTAMP - INTERVAL {minutes} MINUTE "
                f"WHERE seq % 3 = {remainder}"
            )
        first = stores.shards.of_key(ConversationKey(LOW))
        forgotten = 0
        for _ in range(20):
            forgotten += await stores.upkeep.expire_step(first)
        ((left, old),) = await opened.query("SELECT COUNT(*), SUM(seq % 3 = 1) FROM idempotency")

    expected = sum(len(range(1, count, 3)) for count in counts)
    assert (forgotten, left, old) == (expected, sum(counts) - expected, 0)


async def test_forgetting_waits_for_no_lock_and_is_bounded_in_one_conversation(
    settings: Settings,
) -> None:
    """A busy group's ids are written all the time, and there may be millions of them."""
    old, young = 11_000, 1_000
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        columns = "(ckey, sender, client_message_id, seq, stored_at)"
        long_ago = f"CURRENT_TIMESTAMP - INTERVAL {settings.resend_days + 1} DAY"
        for start in range(0, old + young, 1_000):
            since = long_ago if start < old else "CURRENT_TIMESTAMP"
            values = ",".join(
                f"({LOW}, 'ann', '{i:06}', {i}, {since})" for i in range(start, start + 1_000)
            )
            await opened.query(f"INSERT INTO idempotency {columns} VALUES {values}")
        first = stores.shards.of_key(ConversationKey(LOW))
        held = (
            f"SELECT * FROM idempotency WHERE ckey = {LOW} AND sender = 'ann' "
            f"AND client_message_id = '{old:06}' FOR UPDATE"
        )
        async with holding(settings, 0, held), asyncio.timeout(5.0):
            forgotten = [await stores.upkeep.expire_step(first) for _ in range(4)]

    assert forgotten == [5_000, 5_000, 1_000, 0]
