"""The age of a database: what client message ids are stamped with, and grow old by (core/aging.py).

It follows the database's clock, never faster than a tenth beyond the time that passes here: a
clock that is days ahead, or behind, for a while makes no id expire. A row holds it, which any
worker moves on.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import agree
from trunkline.adapters.mysql.sql import statement
from trunkline.core.aging import step_ms

_NAME: Final = "age"
_STEP_SECONDS: Final = 60.0
_FASTER: Final = 1.1
"""So it catches up with the clock after it stood still; and 8 days last for 7 in any case."""


class Age:
    """The age of one database, as this worker saw it last.

    Attributes:
        ms: milliseconds; about the Unix time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen_at = 0.0
        self.ms = 0

    @property
    def stamp(self) -> int:
        """It as a TIMESTAMP is written, YYYYMMDDhhmmss, in a session whose time zone is UTC."""
        return int(f"{datetime.fromtimestamp(self.ms / 1000, UTC):%Y%m%d%H%M%S}")

    async def load(self, database: Database) -> None:
        """Sees how far it is, asking `database`: the same, through other sessions."""
        age_ms, _ = await _read(database)
        if age_ms != self.ms:
            self.ms, self._seen_at = age_ms, asyncio.get_running_loop().time()

    async def look(self) -> None:
        """Sees how far it is, and moves it on if nobody did lately."""
        age_ms, wall_ms = await _read(self._database)
        now = asyncio.get_running_loop().time()
        if age_ms != self.ms:
            self.ms, self._seen_at = age_ms, now
            return
        passed = now - self._seen_at
        step = step_ms(int(_FASTER * passed * 1000), wall_ms - age_ms)
        if passed < _STEP_SECONDS or not step:
            return
        old, new = str(age_ms).encode(), str(age_ms + step).encode()

        async def work(connection: Connection) -> int:
            return await connection.execute(
                statement("deployment_replace", key=_NAME, old=old, value=new)
            )

        if await self._database.transaction(work):
            self.ms, self._seen_at = age_ms + step, now


async def _read(database: Database) -> tuple[int, int]:
    """The age, and the database's clock, with which it began."""
    while not (found := await database.query(statement("age", key=_NAME))):
        ((wall_ms,),) = await database.query(statement("clock"))
        await agree(database, _NAME, str(wall_ms).encode())
    ((age_ms, wall_ms),) = found
    return int(age_ms), int(wall_ms)
