"""The load of a hot database, measured by a commit such as every send waits for."""

import asyncio
import math
from typing import Final

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.lists import Outbox
from trunkline.errors import TrunklineError
from trunkline.ports.clock import Clock

_PATIENCE_SECONDS: Final = 2.0


class CommitLoad:
    """A `ports.load.Load` of one database: a small transaction that writes.

    It waits for the same disk, binlog and replica as the sends do, and costs two rows.
    Where it takes longer than `busy_seconds`, sends wait, too.
    """

    def __init__(
        self, database: Database, outbox: Outbox, clock: Clock, *, busy_seconds: float
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._busy_seconds = busy_seconds

    async def is_busy(self) -> bool:
        """Whether the database is slow now, or does not answer."""
        return await self._commit_seconds() > self._busy_seconds

    async def _commit_seconds(self) -> float:
        began = math.inf

        async def work(connection: Connection) -> None:
            nonlocal began
            began = self._clock.monotonic()  # a session that is made first tells nothing
            await self._outbox.touch(connection)

        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._database.transaction(work)
        except (TrunklineError, TimeoutError):
            return math.inf
        return self._clock.monotonic() - began
