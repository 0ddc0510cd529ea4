"""Opens the cold tier on HBase."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from trunkline.adapters.hbase.cold import HbaseColdStore
from trunkline.adapters.hbase.inspection import HbaseColdInspection
from trunkline.adapters.hbase.layout import check_layout
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table
from trunkline.ports.readings import Reading


class HbaseTier(msgspec.Struct, frozen=True):
    """The open cold tier: what serves, and what an audit asks."""

    cold: HbaseColdStore
    inspection: HbaseColdInspection
    readings: Callable[[], list[Reading]]


@asynccontextmanager
async def open_hbase(
    settings: Settings, chance: random.Random | None = None
) -> AsyncIterator[HbaseTier]:
    """The cold tier, until the context ends; calls still under way then fail.

    `chance` draws the jitter between tries. Raises `StoreNotMigrated` if the table is
    absent, older or another's, `StoreNewer` if a newer version made it, `TierUnavailable`
    if HBase does not answer.
    """
    async with connected(settings, chance or random.Random()) as pool:
        await check_layout(pool, settings.table)
        yield HbaseTier(
            HbaseColdStore(Table(pool, settings.table)),
            HbaseColdInspection(pool, settings.table),
            pool.readings,
        )
