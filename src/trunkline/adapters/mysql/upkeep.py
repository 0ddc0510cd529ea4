"""What a hot database needs besides: lists told late, client message ids forgotten in time."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.lists import Outbox
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import TrunklineError
from trunkline.ports.readings import Reading

_log = structlog.get_logger("trunkline.mysql")
_TELL_SECONDS: Final = 5.0
_EXPIRE_SECONDS: Final = 2.0
_STEP_ROWS: Final = 5_000
_DELETED_AT_ONCE: Final = 500
_START: Final = (0, b"", b"")


class Upkeep:
    """Runs beside a worker; any number of them do no harm to each other."""

    def __init__(self, epochs: Mapping[Database, Epochs], outbox: Outbox, resend_days: int) -> None:
        self._epochs = epochs
        self._outbox = outbox
        self._resend_days = resend_days
        self._untold = 0
        self._positions: dict[Database, Row] = dict.fromkeys(epochs, _START)

    def readings(self) -> list[Reading]:
        """What the last look at the outbox found."""
        return [Reading("trunkline_hot_lists_untold", "", lambda: self._untold)]

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            for database in self._epochs:
                group.create_task(self._expire(database))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            try:
                await self.look_step()
                await self.tell_step()
            except TrunklineError as error:
                _log.warning("outbox_not_read", code=error.code, detail=error.detail)

    async def _expire(self, database: Database) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_SECONDS)
            try:
                await self.expire_step(database)
            except TrunklineError as error:
                _log.warning("ids_not_expired", database=database.name, code=error.code)

    async def look_step(self) -> None:
        """Sees whether this worker's databases still hold its shards."""
        for epochs in self._epochs.values():
            await epochs.look()

    async def tell_step(self) -> int:
        """Tells lists what they were not told at once; returns how many lines were tried."""
        self._untold = await self._outbox.tell_left()
        return self._untold

    async def expire_step(self, database: Database) -> int:
        """Forgets what is too old among the next few thousand client message ids.

        A walk in key order: an index on their time would cost every send. What is read for it
        is not locked, and is bounded in a conversation of millions, too. Returns how many were
        forgotten; the database's clock decides.
        """
        key, sender, id_ = self._positions[database]
        after = {"key": key, "sender": sender, "id": id_}
        old = await database.query(
            statement("idempotency_old", **after, rows=_STEP_ROWS, days=self._resend_days)
        )
        next_step = await database.query(
            statement("idempotency_step", **after, rows=_STEP_ROWS - 1)
        )
        for start in range(0, len(old), _DELETED_AT_ONCE):
            # A list of rows might be looked for by reading, and locking, the whole table.
            texts = [
                statement(
                    "idempotency_delete", key=key, sender=sender, id=id_, days=self._resend_days
                )
                for key, sender, id_ in old[start : start + _DELETED_AT_ONCE]
            ]

            async def work(connection: Connection, texts: Sequence[str] = texts) -> None:
                await connection.rows_of_each(texts)

            await database.transaction(work)
        self._positions[database] = next_step[0] if next_step else _START
        return len(old)
