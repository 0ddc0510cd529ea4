"""Client message ids expire by how long the store ran, whatever a clock says meanwhile (I6)."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from trunkline import sqlite
from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import known_seq_of, seq_of

QUIET = Settings(
    materialiser="thread",
    idle_seconds=3_600.0,
    slice_age_seconds=1e9,
    cached_conversations=1,
    idempotency_days=7,
)
DAY = 86_400.0
NUMBERS = count()


class WrongClock(SteppedClock):
    """Its wall time is ahead by so much, its monotonic time is right."""

    ahead_days = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + round(self.ahead_days * DAY * 1_000)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


async def run_for(stores: EmbeddedStores, writer: Writer, seconds: float) -> None:
    """Time passes, others send, a slice moves; what was cached of others is evicted."""
    stores._clock.advance(seconds)
    for _ in range(2):
        await writer.append(stores.hot, writer.create(f"other{next(NUMBERS)}", "eve", "c"))
    await stores.materialise()


@pytest.mark.parametrize("days", [9.0, 30.0, -9.0])
async def test_a_clock_that_is_days_wrong_for_seconds_forgets_no_id(
    writer: Writer, tmp_path: Path, days: float
) -> None:
    """Also over a restart while it is wrong."""
    clock = WrongClock()
    async with open_embedded(tmp_path / "data", QUIET, clock) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "a"))
        first = seq_of((await writer.append(stores.hot, writer.message("g", "ann", "m")))[0])
        await run_for(stores, writer, 1.0)
        clock.ahead_days = days
        await run_for(stores, writer, 5.0)
    async with open_embedded(tmp_path / "data", QUIET, clock) as stores:
        await run_for(stores, writer, 5.0)
        clock.ahead_days = 0.0
        await run_for(stores, writer, 5.0)
        again = await writer.append(stores.hot, writer.message("g", "ann", "m"))
        assert known_seq_of(again[0]) == first


async def test_what_was_sent_while_the_clock_was_wrong_expires_in_its_time_too(
    writer: Writer, tmp_path: Path
) -> None:
    clock = WrongClock()
    clock.ahead_days = 4_000.0
    async with open_embedded(tmp_path / "data", QUIET, clock) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "a"))
        await writer.append(stores.hot, writer.message("g", "ann", "m"))
        await run_for(stores, writer, 1.0)
        clock.ahead_days = 0.0
        for _ in range(9):
            await run_for(stores, writer, DAY)
    with closing(sqlite.connect(tmp_path / "data" / "tables.db", busy_seconds=0)) as tables:
        kept = tables.execute("SELECT client_message_id FROM idempotency WHERE sender = 'ann'")
        assert kept.fetchall() == []


async def test_ids_of_a_directory_of_0_1_0_stay_for_as_long_again_and_then_expire(
    writer: Writer, tmp_path: Path
) -> None:
    """Theirs bear the time at which they came, one of them a wrong one."""
    clock = WrongClock()
    async with open_embedded(tmp_path / "data", QUIET, clock) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "a"))
        for name in ("m1", "m2"):
            await writer.append(stores.hot, writer.message("g", "ann", name))
    with closing(sqlite.connect(tmp_path / "data" / "tables.db", busy_seconds=0)) as tables:
        now = clock.now_ms()
        tables.execute("DROP TABLE age")
        tables.execute("UPDATE idempotency SET time_ms = ?", (now - int(6 * DAY * 1_000),))
        tables.execute(
            "UPDATE idempotency SET time_ms = ? WHERE client_message_id = 'm2'",
            (now + int(30 * DAY * 1_000),),
        )
    async with open_embedded(tmp_path / "data", QUIET, clock) as stores:
        for _ in range(6):
            await run_for(stores, writer, DAY)
        for name, seq in (("m1", 2), ("m2", 3)):
            again = await writer.append(stores.hot, writer.message("g", "ann", name))
            assert known_seq_of(again[0]) == seq
        for _ in range(3):
            await run_for(stores, writer, DAY)
    with closing(sqlite.connect(tmp_path / "data" / "tables.db", busy_seconds=0)) as tables:
        kept = tables.execute("SELECT client_message_id FROM idempotency WHERE sender = 'ann'")
        assert kept.fetchall() == [("m2",)]
