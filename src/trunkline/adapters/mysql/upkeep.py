"""What a hot database needs besides: lists told late, client message ids forgotten in time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.lists import Outbox
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import TrunklineError
from trunkline.ports.readings import Reading

_log = structlog.get_logger("trunkline.mysql")
_LOOK_SECONDS: Final = 5.0
_TELL_SECONDS: Final = 5.0
_EXPIRE_SECONDS: Final = 2.0
_ROOM_SECONDS: Final = 1.0
_STEP_ROWS: Final = 5_000
_DELETED_AT_ONCE: Final = 500
_START: Final = (0, b"", b"")


class Upkeep:
    """Runs beside a worker; any number of them do no harm to each other."""

    def __init__(
        self,
        epochs: Mapping[Database, Epochs],
        ages: Mapping[Database, Age],
        outbox: Outbox,
        resend_days: int,
    ) -> None:
        self._epochs = epochs
        self._ages = ages
        self._outbox = outbox
        self._resend_days = resend_days
        self._untold = dict.fromkeys(epochs, 0)
        self._positions: dict[Database, Row] = dict.fromkeys(epochs, _START)

    def readings(self) -> list[Reading]:
        """What the last look at the outbox found."""
        return [Reading("trunkline_hot_lists_untold", "", lambda: sum(self._untold.values()))]

    async def run(self) -> None:
        """Runs until cancelled."""
        steps = (
            (_LOOK_SECONDS, self.look_step),
            (_TELL_SECONDS, self.tell_step),
            (_EXPIRE_SECONDS, self.expire_step),
            (_ROOM_SECONDS, self.room_step),
        )
        async with asyncio.TaskGroup() as group:
            for database in self._epochs:
                for seconds, step in steps:
                    group.create_task(self._repeat(seconds, step, database))

    async def _repeat(
        self, seconds: float, step: Callable[[Database], Awaitable[object]], database: Database
    ) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await step(database)
            except TrunklineError as error:
                # That it is away is said by the database itself, once.
                _log.debug("upkeep_waits", database=database.name, detail=error.detail)

    async def room_step(self, database: Database) -> None:
        """Sees whether a database waits for room on its disk."""
        await database.room.look(database.query)

    async def look_step(self, database: Database) -> None:
        """Sees whether a database still holds the shards that the settings name."""
        await self._epochs[database].look()

    async def tell_step(self, database: Database) -> int:
        """Tells lists what they were not told at once by a conversation of this database.

        Returns how many lines were tried.
        """
        self._untold[database] = await self._outbox.tell_left(database)
        return self._untold[database]

    async def expire_step(self, database: Database) -> int:
        """Forgets what is too old among the next few thousand client message ids.

        A walk in key order: an index on their time would cost every send. What is read for it
        is not locked, and is bounded in a conversation of millions, too. Returns how many were
        forgotten; the database's age decides.
        """
        await self._ages[database].look()
        age, days = self._ages[database].stamp, self._resend_days
        key, sender, id_ = self._positions[database]
        after = {"key": key, "sender": sender, "id": id_}
        old = await database.query(
            statement("idempotency_old", **after, rows=_STEP_ROWS, age=age, days=days)
        )
        next_step = await database.query(
            statement("idempotency_step", **after, rows=_STEP_ROWS - 1)
        )
        for start in range(0, len(old), _DELETED_AT_ONCE):
            # A list of rows might be looked for by reading, and locking, the whole table.
            texts = [
                statement("idempotency_delete", key=key, sender=sender, id=id_, age=age, days=days)
                for key, sender, id_ in old[start : start + _DELETED_AT_ONCE]
            ]

            async def work(connection: Connection, texts: Sequence[str] = texts) -> None:
                await connection.rows_of_each(texts)

            await database.transaction(work)
        self._positions[database] = next_step[0] if next_step else _START
        return len(old)
