"""Tables of the tests on the real HBase: made, emptied and dropped."""

from __future__ import annotations

import asyncio
import random
import time

from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.layout import table_name
from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table

_TICK_SECONDS = 0.002


async def make(settings: Settings) -> None:
    await migrate_hbase(settings)


async def drop(settings: Settings) -> None:
    """Drops a table, if it is there."""
    async with connected(settings, random.Random()) as pool:
        name = table_name(settings.table)
        if await pool.call("tableExists", name):
            await pool.call("disableTable", name, seconds=60.0)
            await pool.call("deleteTable", name, seconds=60.0)


async def empty(settings: Settings) -> None:
    """Deletes all rows."""
    async with connected(settings, random.Random()) as pool:
        table = Table(pool, settings.table)
        while page := await table.page(b"", b"", 1_000, keys_only=True):
            deletes = [idl.TDelete(row=result.row) for result in page]
            await pool.call("deleteMultiple", settings.table.encode(), deletes)
    # A delete hides what is put in the same millisecond, too.
    began = time.monotonic()
    while time.monotonic() < began + _TICK_SECONDS:
        await asyncio.sleep(_TICK_SECONDS)


async def put_row(settings: Settings, row: bytes, cells: dict[bytes, bytes]) -> None:
    """Writes a row as it is given, however wrong."""
    values = [idl.TColumnValue(family=b"s", qualifier=q, value=v) for q, v in cells.items()]
    async with connected(settings, random.Random()) as pool:
        put = idl.TPut(row=row, columnValues=values)
        await pool.call("putMultiple", settings.table.encode(), [put])
