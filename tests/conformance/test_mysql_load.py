"""The load that archivers see on real MariaDB and MySQL servers."""

from __future__ import annotations

import msgspec
from databases import database

from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.mysql.connection import connect
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import open_mysql

BUSY_SECONDS = 1.0
NUMBER = 7


async def test_a_database_whose_writes_wait_is_busy_until_they_do_not(settings: Settings) -> None:
    """What they wait for does not matter: here another session holds the row's number."""
    settings = msgspec.structs.replace(settings, busy_commit_seconds=BUSY_SECONDS)
    async with open_mysql(settings, SystemClock(), random_bits=lambda _: NUMBER) as stores:
        *others, load = (archiving.load for archiving in stores.archiving)
        assert not await load.is_busy()
        other = await connect(settings, settings.databases[-1], ("SET autocommit = 0",))
        await other.execute(
            f"INSERT INTO outbox (number, user, ckey, id) VALUES ({NUMBER}, '', 0, '')"
        )
        assert await load.is_busy()
        assert not any([await of_another.is_busy() for of_another in others])
        await other.execute("ROLLBACK")
        other.close()
        assert not await load.is_busy()
    async with database(settings, -1) as asked:
        assert await asked.query("SELECT count(*) FROM outbox") == ((0,),)
