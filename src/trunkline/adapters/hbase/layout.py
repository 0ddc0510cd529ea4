"""The table's layout: its version stands among the table's attributes."""

from typing import Final

from trunkline.adapters.hbase.idl import Struct, idl
from trunkline.adapters.hbase.pool import ConnectionPool
from trunkline.errors import StoreNewer, StoreNotMigrated, TierUnavailable

LAYOUT: Final = 1
LAYOUT_ATTRIBUTE: Final = b"trunkline.layout"


def table_name(name: str) -> Struct:
    """The Thrift name of a table that is written `namespace:table` or `table`."""
    namespace, _, qualifier = name.rpartition(":")
    return idl.TTableName(ns=(namespace or "default").encode(), qualifier=qualifier.encode())


async def layout_of(pool: ConnectionPool, name: str) -> int | None:
    """The layout version of a table: 0 if it is not one of Trunkline, None if there is none."""
    if not await pool.call("tableExists", table_name(name)):
        return None
    descriptor = await pool.call("getTableDescriptor", table_name(name))
    version = (descriptor.attributes or {}).get(LAYOUT_ATTRIBUTE, b"0")
    return int(version) if version.isdigit() else 0


async def check_layout(pool: ConnectionPool, name: str) -> None:
    """Refuses a table that this version cannot serve from.

    Raises `StoreNotMigrated` if it is absent, another's or older, `StoreNewer` if it is
    newer, `TierUnavailable` if HBase does not answer or does not serve all of its regions.
    """
    version = await layout_of(pool, name)
    if version is None:
        raise StoreNotMigrated(f"HBase has no table {name}: run `trunkline migrate`.")
    if version > LAYOUT:
        raise StoreNewer(
            f"HBase's table {name} has layout {version}, newer than {LAYOUT}: use that version."
        )
    if version < LAYOUT:
        raise StoreNotMigrated(
            f"HBase's table {name} is not of layout {LAYOUT}: run `trunkline migrate`, or "
            "name another table if this one is not Trunkline's."
        )
    if not await pool.call("isTableAvailable", table_name(name)):
        raise TierUnavailable(f"HBase does not serve all regions of table {name}.")
