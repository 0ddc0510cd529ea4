"""Questions to HBase from the loop: a few connections, a bound on time, tries again, a breaker.

Everything that is asked here may be asked twice. A connection whose call did not come to its
end, whatever ended it, is closed and never used again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from trunkline.adapters.hbase.breaker import Away, Breaker
from trunkline.adapters.hbase.connection import Connection, ConnectionLost, Refused, Untrusted
from trunkline.adapters.hbase.settings import Settings
from trunkline.errors import TierUnavailable
from trunkline.ports.readings import Reading

log = logging.getLogger(__name__)

# Silence is asked again once, on a new connection: the old one may have died without a sign.
# What is silent on a new one as well is the server, and one more try would only keep the
# caller and a turn waiting.
_TRIES_SECONDS: Final = 2.0
"""Longest time for all tries of a question, in times of one."""


class Mistaken(TierUnavailable):
    """The server is not the one that the settings speak of: no waiting mends that."""


class ConnectionPool:
    """At most `settings.connections` calls at a time, each with its own connection and thread.

    A question given up without an answer opens the breaker, see there.
    """

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
        self._now = asyncio.get_running_loop().time
        self._breaker = Breaker(settings.retry_seconds, self._now)
        self._failed_tries = 0
        self._given_up = 0

    def readings(self) -> list[Reading]:
        """How the questions fare."""
        return [
            Reading("trunkline_cold_failed_tries", "", lambda: self._failed_tries),
            Reading("trunkline_cold_unavailable", "", lambda: self._given_up),
            Reading("trunkline_cold_busy", "", lambda: len(self._busy)),
            Reading("trunkline_cold_away", "", lambda: self._breaker.is_open),
        ]

    async def call(self, name: str, *arguments: object, seconds: float | None = None) -> Any:
        """The answer to a call of the Thrift service.

        `seconds` bounds one try, where it is not `call_seconds`. Raises `TierUnavailable`
        once the tries are used up or have taken twice that time, or at once if HBase says
        that no further one helps or if the breaker is open.
        """
        try:
            with self._breaker.turn() as is_probe:
                async with self._room_for(is_probe=is_probe):
                    seconds = seconds or self._settings.call_seconds
                    return await self._tries(name, arguments, seconds)
        except Away:
            raise self._unavailable("it did not lately") from None
        except Refused as refused:
            raise self._unavailable(str(refused), "refuses this") from refused
        except Untrusted as untrusted:
            raise Mistaken(self._unavailable(str(untrusted)).detail) from untrusted
        except ConnectionLost as lost:
            raise self._unavailable(str(lost)) from lost

    @property
    def is_away(self) -> bool:
        """Whether it did not answer lately."""
        return self._breaker.is_open

    async def close(self) -> None:
        """Ends all connections; calls under way fail."""
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        await asyncio.to_thread(self._threads.shutdown)

    @asynccontextmanager
    async def _room_for(self, *, is_probe: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.call_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise self._unavailable("all connections are busy") from None
        try:
            if self._breaker.is_open and not is_probe:
                raise Away  # since it waits
            yield
        finally:
            self._room.release()

    async def _tries(self, name: str, arguments: tuple[object, ...], seconds: float) -> Any:
        """While the breaker is open, as it is for a probe, there is one try."""
        left = self._settings.attempts
        pause = self._settings.backoff_seconds
        until = self._now() + _TRIES_SECONDS * seconds
        while True:
            left -= 1
            asked_at = self._now()
            try:
                answer = await self._try(name, arguments, min(seconds, until - asked_at))
            except Refused as refused:
                self._note_answer()
                if not left or not refused.retryable or self._now() + pause >= until:
                    raise
            except ConnectionLost as lost:
                if not left or self._breaker.is_open or self._now() + pause >= until:
                    self._note_loss(lost, asked_at)
                    raise
            else:
                self._note_answer()
                return answer
            self._failed_tries += 1
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
            pause *= 2

    def _note_answer(self) -> None:
        if self._breaker.answered():
            log.info("HBase at %s answers again", self._place)

    def _note_loss(self, lost: ConnectionLost, asked_at: float) -> None:
        if not lost.answered and self._breaker.unanswered(asked_at):
            log.warning("HBase at %s does not answer: going on without", self._place)

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
                    self._forget_idle()
                    raise
                break
        return await self._on(self._connection(), name, arguments, seconds)

    def _forget_idle(self) -> None:
        """What made one connection die without a sign may have met the others."""
        while self._idle:
            self._idle.pop().abort()

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
            raise ConnectionLost(f"no answer within {seconds:.3g} s", silent=True) from error
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

    def _unavailable(self, why: str, what: str = "does not answer") -> TierUnavailable:
        self._given_up += 1
        return TierUnavailable(f"HBase at {self._place} {what}: {why}.")

    @property
    def _place(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


@asynccontextmanager
async def connected(settings: Settings, chance: random.Random) -> AsyncIterator[ConnectionPool]:
    """A pool, closed at the context's end. Its connections open when they are needed."""
    pool = ConnectionPool(settings, chance)
    try:
        yield pool
    finally:
        await pool.close()
