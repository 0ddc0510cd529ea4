"""Tables of the tests on the real HBase: made, emptied and dropped."""

from __future__ import annotations

import random

from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.layout import table_name
from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table


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
    """Empties a table, unless it is."""
    async with connected(settings, random.Random()) as pool:
        if await Table(pool, settings.table).page(b"", b"", 1, keys_only=True):
            name = table_name(settings.table)
            await pool.call("disableTable", name, seconds=60.0)
            # Deletes of rows would hide what is put into them later, until HBase compacts.
            await pool.call("truncateTable", name, True, seconds=60.0)


async def put_row(settings: Settings, row: bytes, cells: dict[bytes, bytes]) -> None:
    """Writes a row as it is given, however wrong."""
    values = [idl.TColumnValue(family=b"s", qualifier=q, value=v) for q, v in cells.items()]
    async with connected(settings, random.Random()) as pool:
        put = idl.TPut(row=row, columnValues=values, timestamp=1)
        await pool.call("putMultiple", settings.table.encode(), [put])
