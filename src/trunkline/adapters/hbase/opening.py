"""Opens the cold tier on HBase."""

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from trunkline.adapters.hbase.checked import CheckedTable
from trunkline.adapters.hbase.cold import HbaseColdStore
from trunkline.adapters.hbase.inspection import HbaseColdInspection
from trunkline.adapters.hbase.pool import Mistaken, connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table
from trunkline.errors import TierUnavailable
from trunkline.ports.readiness import TierHealth
from trunkline.ports.readings import Reading

log = logging.getLogger(__name__)


class HbaseTier(msgspec.Struct, frozen=True):
    """The open cold tier: what serves, and what an audit asks."""

    cold: HbaseColdStore
    inspection: HbaseColdInspection
    readings: Callable[[], list[Reading]]
    table: CheckedTable

    def health(self, *, needed: bool) -> TierHealth:
        """Whether it answers; `needed`: whether nothing is done without it."""
        return TierHealth("cold", needed, lambda: self.table.failure)


@asynccontextmanager
async def open_hbase(
    settings: Settings, chance: random.Random | None = None
) -> AsyncIterator[HbaseTier]:
    """The cold tier, until the context ends; calls still under way then fail.

    `chance` draws the jitter between tries. Raises `StoreNotMigrated` if the table is
    absent, older or another's, `StoreNewer` if a newer version made it, `TierUnavailable` if the
    server's certificate is not the one that is trusted. HBase may be away:
    what is asked meanwhile is answered `TierUnavailable`, and the table is looked at later.
    """
    async with connected(settings, chance or random.Random()) as pool:
        table = CheckedTable(pool, settings.table)
        try:
            await table.check()
        except Mistaken:
            raise
        except TierUnavailable as error:
            log.warning("going on without the cold tier: %s", error.detail)
        yield HbaseTier(
            HbaseColdStore(Table(table, settings.table)),
            HbaseColdInspection(pool, settings.table),
            pool.readings,
            table,
        )
