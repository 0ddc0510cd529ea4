"""Asks HBase's table only once it is known to be the right one."""

import asyncio
import logging
from typing import Any, Final

from trunkline.adapters.hbase.layout import check_layout
from trunkline.adapters.hbase.pool import ConnectionPool
from trunkline.errors import StoreNewer, StoreNotMigrated, TierUnavailable

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0


class CheckedTable:
    """A pool whose first question is whether the table is there, and of this layout.

    Attributes:
        failure: code of the error that questions fail with now, or nothing.
    """

    def __init__(self, pool: ConnectionPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._checked = False
        self._wrong = ""
        self._checking = asyncio.Lock()

    @property
    def failure(self) -> str:
        """What keeps it from answering."""
        return "" if self._checked and not self._pool.is_away else TierUnavailable.code

    async def check(self) -> None:
        """Raises as `check_layout` does; once it did not, it asks no more."""
        async with self._checking:
            if not self._checked:
                await check_layout(self._pool, self._name)
                self._checked = True

    async def call(self, name: str, *arguments: object, seconds: float | None = None) -> Any:
        """See `ConnectionPool.call`; raises `TierUnavailable` for a table that is not right."""
        if not self._checked:
            try:
                await self.check()
            except (StoreNotMigrated, StoreNewer) as error:
                if error.detail != self._wrong:
                    self._wrong = error.detail
                    log.error("%s", error.detail)
                raise TierUnavailable(error.detail) from error
        return await self._pool.call(name, *arguments, seconds=seconds)

    async def watch(self) -> None:
        """While it does not answer, sees whether it does again; until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.failure:
                try:
                    await self.check()
                    await check_layout(self._pool, self._name)
                except (StoreNotMigrated, StoreNewer, TierUnavailable) as error:
                    log.debug("%s", error.detail)
