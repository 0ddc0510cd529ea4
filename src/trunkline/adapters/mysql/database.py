"""One database: pools of sessions, transactions that are tried again, queries."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import structlog

from trunkline.adapters.mysql.connection import (
    Connection,
    Contended,
    DuplicateKey,
    Row,
    SessionLost,
    Unanswered,
    connect,
)
from trunkline.adapters.mysql.health import Health
from trunkline.adapters.mysql.room import Room
from trunkline.adapters.mysql.settings import DatabaseSettings, Settings
from trunkline.errors import OutcomeUnknown, StorageFull, StorageUnavailable
from trunkline.ports.readings import Reading

T = TypeVar("T")

_log = structlog.get_logger("trunkline.mysql")
_SESSION: Final = (
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    # Strictness; MySQL warns of it without the last three.
    (
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,"
        "NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'"
    ),
)
_WRITER_WAIT_SECONDS: Final = 3
"""A worker that is frozen for so long in a transaction loses its locks with its session."""
_PAUSE_SECONDS: Final = (0.005, 0.2)


class Pool:
    """Sessions of one kind. One that was cut short, or idle for too long, is closed; once one
    has no answer, so are all from before: the server may have been restarted.

    Attributes:
        busy: sessions that work now.
        wanted: callers that wait for one.
    """

    def __init__(
        self, make: Callable[[], Awaitable[Connection]], most: int, idle_seconds: float
    ) -> None:
        self._make = make
        self._room = asyncio.Semaphore(most)
        self._idle_seconds = idle_seconds
        self._idle: list[Connection] = []
        self._closed = False
        self._losses = 0
        self.busy = 0
        self.wanted = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A session for whoever asks, for as long as the context lasts."""
        async with self._turn():
            losses = self._losses
            connection = self._fresh() or await self._make()
            try:
                yield connection
            except (Unanswered, OutcomeUnknown):
                self._losses += 1
                self._close_idle()
                raise
            finally:
                if connection.usable and not self._closed and losses == self._losses:
                    connection.idle_since = asyncio.get_running_loop().time()
                    self._idle.append(connection)
                else:
                    connection.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self.wanted += 1
        try:
            await self._room.acquire()
        finally:
            self.wanted -= 1
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self._room.release()

    def _fresh(self) -> Connection | None:
        since = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= since:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Closes every session that is idle, and the others as they come back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Crowded(StorageUnavailable):
    """Others hold what the transaction needs, though the database is well."""


class Database:
    """Readers and writers of one database.

    Attributes:
        health: whether it is asked at all; whoever finds it away or back says so there.
        room: whether its server has any.
    """

    def __init__(
        self, settings: Settings, database: DatabaseSettings, random: Callable[[], float]
    ) -> None:
        """`random`: 0 to 1, for jitter."""
        self.settings = settings
        self.place = database
        self.name = f"{database.host}:{database.port}/{database.database}"
        self.health = Health(self.name, asyncio.get_running_loop().time)
        self.room = Room(self.name)
        self._random = random
        self._retries = dict.fromkeys((DuplicateKey, Contended, SessionLost), 0)
        self._unknown_outcomes = 0
        reading = (
            *_SESSION,
            # Else a session that was given up would wait on behind whoever holds the table.
            f"SET SESSION lock_wait_timeout = {math.ceil(settings.answer_seconds)}",
        )
        writing = (
            *_SESSION,
            f"SET SESSION lock_wait_timeout = {settings.lock_wait_seconds}",
            f"SET SESSION innodb_lock_wait_timeout = {settings.lock_wait_seconds}",
            f"SET SESSION wait_timeout = {_WRITER_WAIT_SECONDS}",
            # A transaction begins with its first statement: a round trip less.
            "SET SESSION autocommit = 0",
        )
        self._readers = Pool(
            lambda: connect(settings, database, reading), settings.readers, idle_seconds=60.0
        )
        self._writers = Pool(
            lambda: connect(settings, database, writing),
            settings.writers,
            idle_seconds=_WRITER_WAIT_SECONDS / 2,
        )

    def readings(self) -> list[Reading]:
        """How the sessions and transactions fare."""
        causes = {DuplicateKey: "duplicate", Contended: "contended", SessionLost: "lost"}
        pools = {"readers": self._readers, "writers": self._writers}
        return [
            Reading("trunkline_hot_away", self.name, lambda: bool(self.health.failure)),
            Reading("trunkline_hot_unknown_outcomes", "", lambda: self._unknown_outcomes),
            *(
                Reading("trunkline_hot_retries", cause, partial(self._retries.__getitem__, kind))
                for kind, cause in causes.items()
            ),
            *(
                Reading("trunkline_hot_sessions_busy", name, partial(getattr, pool, "busy"))
                for name, pool in pools.items()
            ),
            *(
                Reading("trunkline_hot_sessions_wanted", name, partial(getattr, pool, "wanted"))
                for name, pool in pools.items()
            ),
        ]

    async def query(self, sql: str) -> Sequence[Row]:
        """One query of its own; again, once, if the server had closed the session."""
        self.health.check()
        try:
            found = await self._ask(sql)
        except SessionLost:
            found = await self._ask(sql)
        self.health.answered()
        return found

    async def _ask(self, sql: str) -> Sequence[Row]:
        async with self._readers.connection() as connection:
            try:
                return await connection.rows(sql)
            except Contended as error:
                raise StorageUnavailable(
                    f"A table of the database {self.name} is being changed.",
                    retry_after_seconds=1.0,
                ) from error

    async def transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again where it met others' locks or a taken key.

        Raises `StorageUnavailable` (nothing was stored), `StorageFull`, or `OutcomeUnknown`
        if the answer to the commit was lost. What `work` raises rolls back.
        """
        self.health.check()
        try:
            result = await self._tries(work)
        except _Crowded:
            raise
        except (StorageUnavailable, StorageFull, OutcomeUnknown) as error:
            self.health.failed(error)
            raise
        self.health.committed()
        return result

    async def _tries(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            self.room.check()
            try:
                return await self._attempt(work)
            except (DuplicateKey, Contended, SessionLost) as error:
                attempt += 1
                self._retries[type(error)] += 1
                if isinstance(error, SessionLost) and attempt > 1:
                    raise
                if attempt >= self.settings.attempts:
                    raise _Crowded(
                        "Others hold what the transaction needs.", retry_after_seconds=0.5
                    ) from error
            least, most = _PAUSE_SECONDS
            await asyncio.sleep(min(most, least * 2**attempt) * (0.5 + self._random()))

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._writers.connection() as connection:
            self.room.begin(connection)
            try:
                return await self._committed(connection, work)
            finally:
                self.room.end(connection)

    async def _committed(
        self, connection: Connection, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        try:
            result = await work(connection)
        except BaseException as error:
            await _roll_back(connection)
            if isinstance(error, Unanswered):
                self.room.check()
            raise
        try:
            await connection.execute("COMMIT")
        except StorageUnavailable as error:
            self._unknown_outcomes += 1
            _log.warning("commit_unanswered", database=self.name, detail=error.detail)
            raise OutcomeUnknown from error
        except BaseException:
            connection.usable = False  # whatever is open in it must not go on
            raise
        return result

    async def close(self) -> None:
        """Closes both pools."""
        self._readers.close()
        self._writers.close()


async def _roll_back(connection: Connection) -> None:
    """Ends the transaction; the server does where the session cannot be used any more."""
    if connection.usable:
        try:
            await connection.execute("ROLLBACK")
        except (StorageUnavailable, Contended):
            connection.usable = False
