"""Opens the hot tier on its databases and closes it again."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from trunkline.adapters.mysql.admission import Admission
from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import SENTINEL, agree, agreed
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.generations import MysqlGenerations
from trunkline.adapters.mysql.hot import MysqlHotStore
from trunkline.adapters.mysql.intake import MysqlIntake
from trunkline.adapters.mysql.keys import MysqlKeys
from trunkline.adapters.mysql.lists import Outbox
from trunkline.adapters.mysql.load import CommitLoad
from trunkline.adapters.mysql.migrate import Migrated, migrate, shipped_steps, versions
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.tasks import MysqlTaskStore
from trunkline.adapters.mysql.upkeep import Upkeep
from trunkline.adapters.mysql.watch import SILENT_SECONDS, Watch
from trunkline.ports.clock import Clock
from trunkline.ports.readiness import TierHealth
from trunkline.ports.readings import Reading

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
    watches: Sequence[Watch]

    async def watch(self) -> None:
        """Looks after the databases until cancelled: one that is away is used once it is back."""
        async with asyncio.TaskGroup() as group:
            for one in self.watches:
                group.create_task(one.run())

    def health(self) -> list[TierHealth]:
        """Of each database; of several, one that commits is enough to serve."""
        databases = self.shards.all
        failures = [partial(getattr, database.health, "failure") for database in databases]
        needed = len(databases) == 1
        each = [
            TierHealth(f"database {database.name}", needed, failure)
            for database, failure in zip(databases, failures, strict=True)
        ]
        if needed:
            return each

        def of_all() -> str:
            codes = [failure() for failure in failures]
            return codes[0] if all(codes) else ""

        return [TierHealth("databases", True, of_all), *each]

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
    agree: Callable[[bytes], None] = lambda _: None,
) -> AsyncIterator[MysqlStores]:
    """The stores of all databases: `async with open_mysql(...) as stores:`.

    `agree` raises `KeyringWrong` if the deployment's sentinel tells that the keyring is another.

    A database that does not answer refuses what is asked of it with `StorageUnavailable`, until
    `MysqlStores.watch` finds that it does and is the right one. Raises `StorageUnavailable` if one
    refuses to be logged in to, `StoreNotMigrated` or `StoreNewer` if its tables are of another
    version, `ServerUnsafe` if it may lose what it committed.
    """
    quick = msgspec.structs.replace(
        settings, readers=1, writers=1, attempts=2, lock_wait_seconds=1,
        connect_seconds=min(settings.connect_seconds, SILENT_SECONDS),
        answer_seconds=min(settings.answer_seconds, SILENT_SECONDS),
    )  # fmt: skip
    async with _databases(settings, jitter) as databases, _databases(quick, jitter) as probes:
        for database, probe in zip(databases, probes, strict=True):
            probe.room = database.room  # what waits for room in one would in the other
        epochs = {database: Epochs(database) for database in databases}
        ages = {database: Age(database) for database in databases}
        shards = ShardMap((database.place.shards, database) for database in databases)
        outbox = Outbox(shards, epochs, random_bits)
        admission = Admission(settings, agree)
        watches = [
            Watch(
                database,
                probe,
                partial(admission.admit, epochs[database], ages[database], first=number == 0),
                outbox.touch,
            )
            for number, (database, probe) in enumerate(zip(databases, probes, strict=True))
        ]
        await _start(watches)
        yield MysqlStores(
            MysqlHotStore(shards, epochs, ages, outbox),
            MysqlGenerations(databases, random_bits),
            MysqlTaskStore(databases, shards, random_bits),
            Upkeep(epochs, ages, outbox, settings.resend_days),
            [
                ArchivingOf(
                    database.name,
                    MysqlTaskStore([database], shards, random_bits),
                    CommitLoad(database, outbox, clock, busy_seconds=settings.busy_commit_seconds),
                )
                for database in databases
            ],
            MysqlIntake(shards, epochs, ages),
            MysqlKeys(shards, outbox),
            shards,
            watches,
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
        stands = await agreed(databases[0], SENTINEL) or sentinel()
        for database in databases:
            await agree(database, SENTINEL, stands)
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


async def _start(watches: Sequence[Watch]) -> None:
    """Asks the first, then all others at once; raises what is wrong with the first of these."""
    first, *others = watches
    await first.start()  # what it tells, an older version's others may lack
    for ended in await asyncio.gather(*(one.start() for one in others), return_exceptions=True):
        if ended is not None:
            raise ended
