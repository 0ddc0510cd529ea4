"""Questions to HBase from the loop: a few connections, a bound on time, tries again.

Everything that is asked here may be asked twice. A connection whose call did not come to its
end, whatever ended it, is closed and never used again.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from trunkline.adapters.hbase.connection import Connection, ConnectionLost, Refused
from trunkline.adapters.hbase.settings import Settings
from trunkline.errors import TierUnavailable
from trunkline.ports.readings import Reading


class ConnectionPool:
    """At most `settings.connections` calls at a time, each with its own connection and thread."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        """`chance` draws the jitter of the pauses between tries."""
        self._settings = settings
        self._tls = settings.tls_context()
        self._chance = chance
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._room = asyncio.Semaphore(settings.connections)
        self._threads = ThreadPoolExecutor(settings.connections, thread_name_prefix="hbase")
        self._closed = False
        self._failed_tries = 0
        self._given_up = 0

    def readings(self) -> list[Reading]:
        """How the questions fare."""
        return [
            Reading("trunkline_cold_failed_tries", "", lambda: self._failed_tries),
            Reading("trunkline_cold_unavailable", "", lambda: self._given_up),
            Reading("trunkline_cold_busy", "", lambda: len(self._busy)),
        ]

    async def call(self, name: str, *arguments: object, seconds: float | None = None) -> Any:
        """The answer to a call of the Thrift service.

        `seconds` bounds one try, where it is not `call_seconds`. Raises `TierUnavailable`
        once the tries are used up, or at once if HBase says that no further one helps.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(settings.call_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise self._unavailable("all connections are busy") from None
        try:
            return await self._tries(name, arguments, seconds or settings.call_seconds)
        except Refused as refused:
            raise self._unavailable(str(refused)) from refused
        except ConnectionLost as lost:
            raise self._unavailable(str(lost)) from lost
        finally:
            self._room.release()

    async def close(self) -> None:
        """Ends all connections; calls under way fail."""
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        await asyncio.to_thread(self._threads.shutdown)

    async def _tries(self, name: str, arguments: tuple[object, ...], seconds: float) -> Any:
        pause = self._settings.backoff_seconds
        for _ in range(self._settings.attempts - 1):
            try:
                return await self._try(name, arguments, seconds)
            except ConnectionLost:
                self._failed_tries += 1
            except Refused as refused:
                if not refused.retryable:
                    raise
                self._failed_tries += 1
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
            pause *= 2
        return await self._try(name, arguments, seconds)

    async def _try(self, name: str, arguments: tuple[object, ...], seconds: float) -> Any:
        """One try; a connection that ended while it lay idle is not one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_quiet():
                connection.abort()
                continue
            try:
                return await self._on(connection, name, arguments, seconds)
            except ConnectionLost as lost:
                if lost.silent:
                    raise
                break
        return await self._on(self._connection(), name, arguments, seconds)

    async def _on(
        self, connection: Connection, name: str, arguments: tuple[object, ...], seconds: float
    ) -> Any:
        if self._closed:
            raise ConnectionLost("the store is closed")
        loop = asyncio.get_running_loop()
        whole = False
        self._busy.add(connection)
        try:
            async with asyncio.timeout(seconds):
                answer = await loop.run_in_executor(
                    self._threads, connection.call, name, arguments, seconds
                )
            whole = True
            return answer
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {seconds:g} s", silent=True) from error
        except Refused:
            whole = True
            raise
        finally:
            self._busy.discard(connection)
            if whole and not self._closed:
                self._idle.append(connection)
            else:
                connection.abort()

    def _connection(self) -> Connection:
        settings = self._settings
        return Connection(
            settings.host, settings.port, connect_seconds=settings.connect_seconds, tls=self._tls
        )

    def _unavailable(self, why: str) -> TierUnavailable:
        self._given_up += 1
        place = f"{self._settings.host}:{self._settings.port}"
        return TierUnavailable(f"HBase at {place} does not answer: {why}.")


@asynccontextmanager
async def connected(settings: Settings, chance: random.Random) -> AsyncIterator[ConnectionPool]:
    """A pool, closed at the context's end. Its connections open when they are needed."""
    pool = ConnectionPool(settings, chance)
    try:
        yield pool
    finally:
        await pool.close()
