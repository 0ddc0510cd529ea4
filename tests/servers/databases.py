"""Databases of the hot tier that are this test process's own, on the servers that are there."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import msgspec
from addresses import mariadb_servers, mysql8_server

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql
from trunkline.errors import StorageUnavailable
from trunkline.ports.tasks import ArchiveTask, TaskStore, Waiting
from trunkline.testing.conformance import SteppedClock

SERVERS = {"mariadb": mariadb_servers, "mysql8": mysql8_server}
TABLES = (
    "conversation", "message", "idempotency", "member", "outbox", "user_version",
    "user_conversation", "endpoint_offset", "archive_task",
)  # fmt: skip


@asynccontextmanager
async def database(settings: Settings, number: int = 0) -> AsyncIterator[Database]:
    """One of the databases."""
    opened = Database(settings, settings.databases[number], lambda: 0.5)
    try:
        yield opened
    finally:
        await opened.close()


async def everywhere(settings: Settings, *statements: str) -> list[Sequence[Row]]:
    """Runs statements on every database; the rows of each answer."""
    answers = []
    for number in range(len(settings.databases)):
        async with database(settings, number) as opened:
            answers += [await opened.query(text) for text in statements]
    return answers


@asynccontextmanager
async def holding(settings: Settings, number: int, sql: str) -> AsyncIterator[asyncio.Event]:
    """Holds the locks of a statement until the event is set, at the latest at the end."""
    held, free = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        await connection.rows(sql)
        held.set()
        while not free.is_set():  # the session would be closed for being idle
            await connection.rows("SELECT 1")
            await asyncio.sleep(0.01)

    async with database(settings, number) as opened, asyncio.TaskGroup() as group:
        group.create_task(opened.transaction(work))
        try:
            await held.wait()
            yield free
        finally:
            free.set()


async def kill_session(opened: Database, chance: Random, like: str | None = None) -> str | None:
    """Kills one session of this database other than the own; what it was busy with, if any was.

    `like`: only one that is busy with such a statement.
    """
    busy = "" if like is None else f"AND command = 'Query' AND info LIKE '{like}'"
    found = await opened.query(
        "SELECT id, info FROM information_schema.processlist WHERE db = DATABASE() "
        f"AND id <> CONNECTION_ID() {busy}"
    )
    if not found:
        return None
    session, info = chance.choice(found)
    try:
        await opened.query(f"KILL {session}")
    except StorageUnavailable:
        return None  # it was gone already
    return str(info)


def own_databases(servers: Settings, name: str) -> Settings:
    """The same servers with databases of this name."""
    own = tuple(msgspec.structs.replace(place, database=name) for place in servers.databases)
    return msgspec.structs.replace(servers, databases=own)


async def made_empty(servers: Settings, purpose: str = "test") -> Settings:
    """Databases without tables, named after the process, so that many may run."""
    worker = re.sub(r"\W", "", os.environ.get("PYTEST_XDIST_WORKER", "main"))
    name = f"trunkline_{purpose}_{worker}"
    await everywhere(servers, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    return own_databases(servers, name)


async def made_anew(servers: Settings) -> Settings:
    """Empty databases with tables."""
    settings = await made_empty(servers)
    await migrate_mysql(settings, lambda: b"sentinel")
    return settings


async def emptied(settings: Settings) -> None:
    """Takes every row out, but the shards; ages begin anew."""
    ages = "DELETE FROM deployment WHERE name = 'age'"
    await everywhere(settings, *(f"DELETE FROM {table}" for table in TABLES), ages)


async def tell_left(stores: MysqlStores) -> int:
    """Tells lists what they were not told at once; how many lines were tried."""
    return sum([await stores.upkeep.tell_step(place) for place in stores.shards.all])


async def look(stores: MysqlStores) -> None:
    """Sees which shards the databases hold."""
    for place in stores.shards.all:
        await stores.upkeep.look_step(place)


class Leases:
    """Leases end by the database's clock, by which tasks wait, too; as a test's clock moves,
    both are made to have begun earlier.
    """

    def __init__(self, settings: Settings, clock: SteppedClock) -> None:
        self._settings = settings
        self._clock = clock
        self._seen_ms = clock.now_ms()

    async def follow(self) -> None:
        """Does what the time that passed on the test's clock does."""
        passed_ms = self._clock.now_ms() - self._seen_ms
        if passed_ms:
            self._seen_ms += passed_ms
            await self.end_earlier(passed_ms)

    async def end_earlier(self, by_ms: int) -> None:
        """Moves the ends of all leases and pauses, and since when tasks wait."""
        text = (
            f"UPDATE archive_task SET not_before_ms = not_before_ms - {by_ms}, "
            f"waiting_since = waiting_since - INTERVAL {by_ms * 1000} MICROSECOND"
        )
        await everywhere(self._settings, text)


class LaterTasks:
    """A task store by the test's clock."""

    def __init__(self, tasks: TaskStore, leases: Leases) -> None:
        self._tasks = tasks
        self._leases = leases

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        await self._leases.follow()
        return await self._tasks.lease(limit, lease_seconds)

    async def waiting(self) -> Waiting:
        await self._leases.follow()
        return await self._tasks.waiting()

    def __getattr__(self, name: str) -> object:
        return getattr(self._tasks, name)
