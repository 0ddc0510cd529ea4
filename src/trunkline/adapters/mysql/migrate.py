"""Makes and upgrades the tables; safe to run twice, and from two places at once."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import AGREED_KEK
from trunkline.adapters.mysql.literals import rows
from trunkline.adapters.mysql.sql import FOLDER, statement
from trunkline.errors import StorageUnavailable, StoreNewer, StoreNotMigrated

_LOCK: Final = "trunkline.migrate"
_LOCK_SECONDS: Final = 5


@cache
def migrations() -> Sequence[tuple[int, Sequence[str]]]:
    """Every version's statements, the oldest first."""
    found = []
    for file in FOLDER.iterdir():
        number = file.name.removesuffix(".sql")
        if number.isdigit():
            text = re.sub(r"^--.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            parts = tuple(part.strip() for part in text.split(";") if part.strip())
            found.append((int(number), parts))
    return tuple(sorted(found))


def newest_version() -> int:
    """The version that this code works with."""
    return migrations()[-1][0]


async def version(database: Database) -> int:
    """The version of a database's tables, 0 if there are none."""
    if not await database.query(statement("schema_table")):
        return 0
    ((found,),) = await database.query(statement("schema_version"))
    return int(found)


async def check_version(database: Database) -> None:
    """Raises `StoreNewer` or `StoreNotMigrated` unless the tables are this code's."""
    found, newest = await version(database), newest_version()
    if found > newest:
        raise StoreNewer(
            f"The database {database.name} has tables of version {found}, this is {newest}: "
            "use the newer Trunkline."
        )
    if found < newest:
        raise StoreNotMigrated(
            f"The database {database.name} has tables of version {found}, not {newest}: "
            "run `trunkline migrate`."
        )


async def migrate(database: Database) -> list[int]:
    """Brings the tables to the newest version; returns the versions that were made.

    Refuses to run backwards with `StoreNewer`. A change of tables commits by itself, so a
    lock keeps others out meanwhile, and each statement may be run again.
    """

    async def run(connection: Connection) -> list[int]:
        name = f"{_LOCK}.{database.place.database}"
        for _ in range(12):
            ((locked,),) = await connection.rows(
                statement("lock_take", lock=name, seconds=_LOCK_SECONDS)
            )
            if locked == 1:
                break
        else:
            raise StorageUnavailable("Another migration has run for a minute.")
        try:
            return await _upgrade(database, connection)
        finally:
            await connection.rows(statement("lock_release", lock=name))

    return await database.transaction(run)


async def _upgrade(database: Database, connection: Connection) -> list[int]:
    if not await connection.rows(statement("schema_table")):
        await connection.execute(statement("schema_create"))
    ((found,),) = await connection.rows(statement("schema_version"))
    if found > newest_version():
        raise StoreNewer(
            f"The database {database.name} has tables of version {found}, this is "
            f"{newest_version()}: nothing was changed."
        )
    made = []
    for number, statements in migrations():
        if number > found:
            for text in statements:
                await connection.execute(text)
            await connection.execute(statement("schema_made", version=number))
            made.append(number)
    first, last = database.place.shards
    shards = [(shard, 1) for shard in range(first, last + 1)]
    await connection.execute(statement("shard_insert", lists={"rows": rows(shards)}))
    await connection.execute(statement("deployment_put", key=AGREED_KEK, value=b"0"))
    return made
