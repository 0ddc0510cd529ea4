"""Tables are made and upgraded in steps, on real MariaDB and MySQL servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from databases import SERVERS, database, everywhere, made_empty

from trunkline.adapters.mysql.migrate import (
    Migrated,
    Phase,
    Step,
    Versions,
    check_version,
    migrate,
    shipped_steps,
    versions,
)
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import migrate_mysql, open_mysql
from trunkline.errors import ConfigInvalid, StorageUnavailable, StoreNewer, StoreNotMigrated
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import check_view, seq_of

NOW = shipped_steps()[-1].version
NEXT = NOW + 1
HELD_SECONDS = 15.0


def next_version(tables: list[str]) -> list[Step]:
    """A version that adds a column to every table first, and an index when all have it."""
    columns = [f"ALTER TABLE {table} ADD COLUMN added VARBINARY(8)" for table in tables]
    before = Step(NEXT, Phase.BEFORE, columns)
    after = Step(NEXT, Phase.AFTER, ("ALTER TABLE message ADD INDEX by_added (added)",))
    return [*shipped_steps(), before, after]


@pytest.fixture(params=SERVERS)
def empty(request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Databases without tables, of this test's own."""
    settings = asyncio.run(made_empty(SERVERS[request.param](), "migration"))
    yield settings
    name = settings.databases[0].database
    asyncio.run(everywhere(settings, f"DROP DATABASE {name}"))


async def tables_of(settings: Settings) -> list[str]:
    async with database(settings) as opened:
        return [str(name) for (name,) in await opened.query("SHOW TABLES")]


async def test_it_runs_once_also_from_many_places(empty: Settings) -> None:
    everything = [step.name for step in shipped_steps()]
    async with database(empty) as opened:
        made = await asyncio.gather(*(migrate(opened, shipped_steps()) for _ in range(4)))
        assert sorted(made) == [Migrated([], [])] * 3 + [Migrated(everything, [])]
        assert (await versions(opened)).before == NOW


async def test_workers_go_on_beside_the_next_version_until_none_is_left(
    empty: Settings, writer: Writer
) -> None:
    await migrate_mysql(empty, lambda: b"sentinel")
    clock = SteppedClock()
    steps = next_version(await tables_of(empty))
    async with open_mysql(empty, clock) as running, database(empty) as opened:
        await writer.append(running.hot, writer.create("g", "ann", "c", ["bob"]))
        waiting = Migrated([f"{NEXT:04}_before"], [f"{NEXT:04}_after"])
        assert await migrate(opened, steps) == waiting
        for other in range(1, len(empty.databases)):
            async with database(empty, other) as beside:
                await migrate(beside, steps)
        await check_version(opened, steps)
        async with open_mysql(empty, clock) as restarted:
            for number, stores in enumerate((running, restarted)):
                draft = writer.message("g", "ann", f"m{number}")
                (outcome,) = await writer.append(stores.hot, draft)
                assert seq_of(outcome) == number + 2
        assert len(await check_view(writer, running.hot, "bob", "g")) == 3
        assert await migrate(opened, shipped_steps()) == Migrated([], [])  # of the older code
        assert await migrate(opened, steps, after=True) == Migrated([f"{NEXT:04}_after"], [])
        with pytest.raises(StoreNewer, match=f"{NEXT}.*newer Trunkline"):
            async with open_mysql(empty, clock):
                pass
        with pytest.raises(StoreNewer, match="nothing was changed"):
            await migrate(opened, shipped_steps())
        assert await versions(opened) == Versions(NEXT, NEXT)


async def test_code_whose_tables_are_not_made_yet_is_refused(empty: Settings) -> None:
    async with database(empty) as opened:
        with pytest.raises(StoreNotMigrated, match="trunkline migrate"):
            await check_version(opened, shipped_steps())
        await migrate(opened, shipped_steps())
        with pytest.raises(StoreNotMigrated, match=f"version {NOW}, this is {NEXT}"):
            await check_version(opened, next_version(["message"]))


async def test_one_that_was_cut_off_goes_on(empty: Settings) -> None:
    """Between a change and its record, and between two changes of a step."""
    async with database(empty) as opened:
        await migrate(opened, shipped_steps())
        *_, before, after = steps = next_version(await tables_of(empty))
        for text in before.statements[:3]:
            await opened.query(text)
        assert (await migrate(opened, steps)).made == [before.name]
        for text in after.statements:
            await opened.query(text)
        assert (await migrate(opened, steps, after=True)).made == [after.name]


async def test_a_database_of_something_else_is_left_alone(empty: Settings) -> None:
    async with database(empty) as opened:
        await opened.query("CREATE TABLE message (id INT PRIMARY KEY)")
        with pytest.raises(ConfigInvalid, match=r"mysql\.databases"):
            await migrate(opened, shipped_steps())
    assert await tables_of(empty) == ["message"]


async def test_a_table_that_a_forgotten_session_holds_holds_up_no_send(
    empty: Settings, writer: Writer
) -> None:
    """It gives up within seconds, names the session, and finishes when it is run again."""
    await migrate_mysql(empty, lambda: b"sentinel")
    steps = next_version(["message"])
    async with open_mysql(empty, SteppedClock()) as running, database(empty) as forgotten:
        await writer.append(running.hot, writer.create("g", "ann", "c"))
        async with database(empty) as opened, forgotten._readers.connection() as session:
            await session.rows("START TRANSACTION")
            await session.rows("SELECT seq FROM message")
            ((number,),) = await session.rows("SELECT CONNECTION_ID()")
            async with asyncio.timeout(HELD_SECONDS):
                with pytest.raises(StorageUnavailable, match=rf"\b{number} \(of ") as refused:
                    await migrate(opened, steps, after=True)
            assert "trunkline migrate" in str(refused.value)
            (outcome,) = await writer.append(running.hot, writer.message("g", "ann", "m"))
            assert seq_of(outcome) == 2
            await session.rows("ROLLBACK")
            made = await migrate(opened, steps, after=True)
            assert made == Migrated([f"{NEXT:04}_before", f"{NEXT:04}_after"], [])
