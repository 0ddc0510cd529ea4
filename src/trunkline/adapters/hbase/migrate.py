"""Makes the table: split into regions from the start, synced at every write."""

import asyncio
import random
from typing import Final

import msgspec

import trunkline.adapters.hbase.rows as rows
from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.layout import (
    LAYOUT,
    LAYOUT_ATTRIBUTE,
    check_layout,
    layout_of,
    table_name,
)
from trunkline.adapters.hbase.pool import ConnectionPool, connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.errors import ConfigInvalid, TierUnavailable

# A region takes some tens of milliseconds; on a busy cluster much longer.
_CREATE_SECONDS: Final = 120.0
_READY_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 10.0
"""No message waits for a migration: less would only make it fail while HBase has much to do."""
_PAUSE_SECONDS: Final = 0.2


async def migrate_hbase(settings: Settings, chance: random.Random | None = None) -> bool:
    """Brings the table to this version's layout; returns whether there was something to do.

    May run again, and in two places at once: HBase lets only one make the table, and its
    layout version is there from the first moment. Raises `StoreNewer` for a table of a newer
    layout, `ConfigInvalid` for one that is not Trunkline's, `TierUnavailable` if HBase does
    not answer.
    """
    name = settings.table
    settings = msgspec.structs.replace(
        settings, call_seconds=max(settings.call_seconds, _CALL_SECONDS)
    )
    async with connected(settings, chance or random.Random()) as pool:
        version = await layout_of(pool, name)
        if version == 0:
            raise ConfigInvalid(
                f"HBase's table {name} is not Trunkline's: name another in `hbase.table`."
            )
        if version is None:
            await _create(pool, settings)
        await _wait_until_served(pool, name)
    return version is None


async def _create(pool: ConnectionPool, settings: Settings) -> None:
    descriptor = idl.TTableDescriptor(
        tableName=table_name(settings.table),
        columns=[
            idl.TColumnFamilyDescriptor(
                name=rows.FAMILY,
                maxVersions=1,
                # Neighbouring row keys share most of their bytes.
                dataBlockEncoding=idl.TDataBlockEncoding.FAST_DIFF,
            )
        ],
        attributes={LAYOUT_ATTRIBUTE: str(LAYOUT).encode()},
        durability=idl.TDurability.FSYNC_WAL,
    )
    splits = rows.splits(settings.regions)
    try:
        await pool.call("createTable", descriptor, splits, seconds=_CREATE_SECONDS)
    except TierUnavailable:
        # Someone else made it meanwhile, or an earlier try of ours whose answer was lost.
        if await layout_of(pool, settings.table) is None:
            raise


async def _wait_until_served(pool: ConnectionPool, name: str) -> None:
    """Waits for the regions of a table that was made a moment ago, perhaps by someone else."""
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    while True:
        try:
            return await check_layout(pool, name)
        except TierUnavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
