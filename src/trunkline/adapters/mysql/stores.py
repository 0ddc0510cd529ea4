"""Opens the hot tier on its databases and closes it again."""

import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import SENTINEL, agree, agreed
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.generations import MysqlGenerations
from trunkline.adapters.mysql.hot import MysqlHotStore
from trunkline.adapters.mysql.intake import MysqlIntake
from trunkline.adapters.mysql.keys import MysqlKeys
from trunkline.adapters.mysql.lists import Outbox
from trunkline.adapters.mysql.load import CommitLoad
from trunkline.adapters.mysql.migrate import (
    Migrated,
    check_version,
    migrate,
    shipped_steps,
    versions,
)
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.adapters.mysql.tasks import MysqlTaskStore
from trunkline.adapters.mysql.upkeep import Upkeep
from trunkline.errors import ServerUnsafe
from trunkline.ports.clock import Clock
from trunkline.ports.readings import Reading

_SAFE: Final = {
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "sync_binlog": "1",
}

_MIGRATE_SECONDS: Final = 86_400.0
"""A change of a large table takes as long as it takes."""


class ArchivingOf(msgspec.Struct, frozen=True):
    """What an archiver of one database works with."""

    name: str
    tasks: MysqlTaskStore
    load: CommitLoad


class MysqlStores(msgspec.Struct, frozen=True):
    """What is open. `tasks` are those of all databases, `archiving` each one's."""

    hot: MysqlHotStore
    generations: MysqlGenerations
    tasks: MysqlTaskStore
    upkeep: Upkeep
    archiving: Sequence[ArchivingOf]
    intake: MysqlIntake
    keys: MysqlKeys
    shards: ShardMap[Database]

    def readings(self) -> list[Reading]:
        """What an operator may want to know of the tier."""
        of_databases = [r for database in self.shards.all for r in database.readings()]
        of_tasks = [r for archiving in self.archiving for r in archiving.tasks.readings()]
        return [*of_databases, *self.hot.readings(), *self.upkeep.readings(), *of_tasks]


@asynccontextmanager
async def open_mysql(
    settings: Settings,
    clock: Clock,
    *,
    random_bits: Callable[[int], int] = secrets.randbits,
    jitter: Callable[[], float] = random.random,
) -> AsyncIterator[MysqlStores]:
    """The stores of all databases: `async with open_mysql(...) as stores:`.

    Raises `StorageUnavailable` if one does not answer, `StoreNotMigrated` or `StoreNewer`
    if its tables are of another version, `ServerUnsafe` if it may lose what it committed.
    """
    async with _databases(settings, jitter) as databases:
        epochs: dict[Database, Epochs] = {}
        for database in databases:
            if not settings.accept_unsafe:
                await _check_safe(database)
            await check_version(database, shipped_steps())
            epochs[database] = Epochs(database)
            await epochs[database].load()
        shards = ShardMap((database.place.shards, database) for database in databases)
        outbox = Outbox(shards, epochs, random_bits)
        yield MysqlStores(
            MysqlHotStore(shards, epochs, outbox),
            MysqlGenerations(databases, random_bits),
            MysqlTaskStore(databases, shards, random_bits),
            Upkeep(epochs, outbox, settings.resend_days),
            [
                ArchivingOf(
                    database.name,
                    MysqlTaskStore([database], shards, random_bits),
                    CommitLoad(database, outbox, clock, busy_seconds=settings.busy_commit_seconds),
                )
                for database in databases
            ],
            MysqlIntake(shards, epochs),
            MysqlKeys(shards, outbox),
            shards,
        )


async def migrate_mysql(
    settings: Settings, sentinel: Callable[[], bytes], *, after: bool = False
) -> list[tuple[str, Migrated]]:
    """Makes or upgrades the tables of each database; returns their names and what was made.

    `sentinel` makes what tells at each start whether the keyring is the right one. `after`: no
    worker of an older version runs any more.
    """
    patient = msgspec.structs.replace(settings, answer_seconds=_MIGRATE_SECONDS)
    async with _databases(patient, random.random) as databases:
        made = [
            (database.name, await migrate(database, shipped_steps(), after=after))
            for database in databases
        ]
        if await agreed(databases[0], SENTINEL) is None:
            await agree(databases[0], SENTINEL, sentinel())
        return made


async def agreed_sentinel(settings: Settings) -> bytes | None:
    """What tells whether a keyring is the databases' one; None before the first `migrate`."""
    async with _databases(settings, random.random) as databases:
        made = await versions(databases[0])
        return await agreed(databases[0], SENTINEL) if made.before else None


@asynccontextmanager
async def _databases(
    settings: Settings, jitter: Callable[[], float]
) -> AsyncIterator[list[Database]]:
    async with AsyncExitStack() as stack:
        databases = []
        for place in settings.databases:
            database = Database(settings, place, jitter)
            stack.push_async_callback(database.close)
            databases.append(database)
        yield databases


async def _check_safe(database: Database) -> None:
    """Raises `ServerUnsafe` and names the setting."""
    found = {name.lower(): value for name, value in await database.query(statement("variables"))}
    for name, safe in _SAFE.items():
        if name == "sync_binlog" and found.get("log_bin") == "OFF":
            continue
        if found.get(name, safe) != safe:
            raise ServerUnsafe(
                f"The database {database.name} has {name} = {found[name]}; "
                f"what it commits is safe with {safe} only."
            )
