"""Looks after one database: lets it be used once it is known to be the right one, and to answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.adapters.mysql.connection import Connection, Mistaken, SessionLost
from trunkline.adapters.mysql.database import Database
from trunkline.errors import StorageUnavailable, TrunklineError

START_SECONDS: Final = 5.0
"""How long a start waits for a database; then it is taken to be away."""
_LOOK_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 3.0
"""A database that answers nobody for so long is asked nothing until it answers here."""


class Watch:
    """Admits a database, and from then on sees whether it answers and commits.

    It asks through sessions of its own, with short bounds, and only while nobody else gets
    answers.
    """

    def __init__(
        self,
        database: Database,
        probe: Database,
        admit: Callable[[Database], Awaitable[None]],
        touch: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """`probe`: the same database. `admit` learns what must be known of it and raises what is
        wrong with it; `touch` writes what changes nothing.
        """
        self._database = database
        self._health = database.health
        self._probe = probe
        self._admit = admit
        self._touch = touch
        self._admitted = False

    async def start(self) -> None:
        """Admits it, or takes it to be away; raises what no waiting mends."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._admit(self._probe)
        except Mistaken:
            raise
        except StorageUnavailable as error:
            self._health.refuse(error)
        except TimeoutError:
            self._health.refuse(self._silent())
        else:
            self._admitted = True

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Looks once."""
        if not self._admitted:
            await self._admit_late()
            return
        if self._health.failure or self._quiet_seconds() > _QUIET_SECONDS:
            await self._see_whether_it_answers()
        if self._health.failure and not self._health.refuses:
            await self._see_whether_it_commits()

    async def _admit_late(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._admit(self._probe)
        except TrunklineError as error:
            self._health.refuse(error)
        except TimeoutError:
            self._health.refuse(self._silent())
        else:
            self._admitted = True
            self._health.committed()

    async def _see_whether_it_answers(self) -> None:
        try:
            await self._probe.query("SELECT 1")
        except SessionLost as error:
            self._health.refuse(error)
        except TrunklineError as error:
            if self._quiet_seconds() >= SILENT_SECONDS:
                self._health.refuse(error)
        else:
            self._health.answers()

    async def _see_whether_it_commits(self) -> None:
        try:
            await self._probe.transaction(self._touch)
        except TrunklineError as error:
            self._health.failed(error)
        else:
            self._health.committed()

    def _quiet_seconds(self) -> float:
        return asyncio.get_running_loop().time() - self._health.answered_at

    def _silent(self) -> StorageUnavailable:
        return StorageUnavailable(f"The database {self._database.name} does not answer.")
