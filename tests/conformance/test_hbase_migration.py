"""The table is made once, however often and from wherever it is asked for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import hbase_tables
import msgspec
import pytest
from test_hbase import segment

from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.inspection import HbaseColdInspection
from trunkline.adapters.hbase.layout import table_name
from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.opening import open_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.errors import ConfigInvalid, StoreNewer, StoreNotMigrated, TierUnavailable
from trunkline.model import ConversationKey, Seq
from trunkline.testing.proxy import Proxy


@pytest.fixture
async def absent(hbase_server: Settings) -> AsyncIterator[Settings]:
    """Settings that name a table that is not there."""
    settings = msgspec.structs.replace(hbase_server, table=hbase_server.table + "_new")
    await hbase_tables.drop(settings)
    yield settings
    await hbase_tables.drop(settings)


async def descriptor(settings: Settings) -> Any:
    async with connected(settings, random.Random()) as pool:
        return await pool.call("getTableDescriptor", table_name(settings.table))


async def make(settings: Settings, attributes: dict[bytes, bytes]) -> None:
    """A table that migration did not make."""
    table = idl.TTableDescriptor(
        tableName=table_name(settings.table),
        columns=[idl.TColumnFamilyDescriptor(name=b"s")],
        attributes=attributes,
    )
    async with connected(settings, random.Random()) as pool:
        await pool.call("createTable", table, None, seconds=60.0)


async def test_a_table_that_is_not_there_is_made_once(absent: Settings) -> None:
    """Until then nothing opens, and the error says what to run."""
    with pytest.raises(StoreNotMigrated, match="trunkline migrate"):
        async with open_hbase(absent):
            pass
    async with connected(absent, random.Random()) as pool:
        (fault,) = await HbaseColdInspection(pool, absent.table).faults()
    assert "trunkline migrate" in fault.what
    assert await migrate_hbase(absent)
    assert not await migrate_hbase(absent)
    async with open_hbase(absent) as tier:
        assert await tier.inspection.faults() == []


async def test_a_new_table_is_split_and_synced(absent: Settings) -> None:
    """DESIGN section 5: pre-split; the WAL on disk, whatever the site says."""
    await migrate_hbase(absent)
    made = await descriptor(absent)
    assert made.durability == idl.TDurability.FSYNC_WAL
    assert [column.maxVersions for column in made.columns] == [1]
    async with connected(absent, random.Random()) as pool:
        regions = await pool.call("getAllRegionLocations", absent.table.encode())
    starts = {region.regionInfo.startKey or b"" for region in regions}
    assert starts == {b"", b"\x40\x00", b"\x80\x00", b"\xc0\x00"}


async def test_two_places_at_once_make_one_table(absent: Settings) -> None:
    """Each returns when the table can be opened; at least one says that it did something."""
    made = await asyncio.gather(*(migrate_hbase(absent) for _ in range(3)))
    assert any(made)
    async with open_hbase(absent):
        pass


async def test_a_table_whose_making_was_answered_to_nobody_is_there(absent: Settings) -> None:
    """The try that follows finds what the one before had done."""
    async with Proxy(absent.host, absent.port) as proxy:
        settings = msgspec.structs.replace(absent, port=proxy.port, attempts=2)
        migrating = asyncio.ensure_future(migrate_hbase(settings))
        async with asyncio.timeout(30):
            while not await exists(absent):
                await asyncio.sleep(0.005)
        proxy.reset_all()
        assert await migrating
    async with open_hbase(absent):
        pass


async def exists(settings: Settings) -> bool:
    async with connected(settings, random.Random()) as pool:
        return bool(await pool.call("tableExists", table_name(settings.table)))


async def test_a_table_of_a_newer_layout_is_refused(absent: Settings) -> None:
    """By migration too, which leaves it as it is."""
    await make(absent, {b"trunkline.layout": b"2"})
    before = await descriptor(absent)
    with pytest.raises(StoreNewer, match="layout 2"):
        await migrate_hbase(absent)
    with pytest.raises(StoreNewer, match="layout 2"):
        async with open_hbase(absent):
            pass
    assert await descriptor(absent) == before


@pytest.mark.parametrize("attributes", [{}, {b"trunkline.layout": b"x"}], ids=["none", "nonsense"])
async def test_a_table_that_is_not_trunklines_is_left_alone(
    absent: Settings, attributes: dict[bytes, bytes]
) -> None:
    """Another name is to be chosen."""
    await make(absent, attributes)
    with pytest.raises(ConfigInvalid, match=r"hbase\.table"):
        await migrate_hbase(absent)
    with pytest.raises(StoreNotMigrated, match="name another table"):
        async with open_hbase(absent):
            pass


async def test_a_table_that_is_switched_off_is_unavailable(absent: Settings) -> None:
    """It may be back: the error says to retry."""
    await migrate_hbase(absent)
    async with connected(absent, random.Random()) as pool:
        await pool.call("disableTable", table_name(absent.table), seconds=60.0)
    async with open_hbase(absent) as tier:
        with pytest.raises(TierUnavailable):
            await tier.cold.metadata(ConversationKey(1))
    async with connected(absent, random.Random()) as pool:
        await pool.call("deleteTable", table_name(absent.table), seconds=60.0)


async def test_the_last_put_counts_when_regions_have_moved_and_files_lie_side_by_side(
    absent: Settings,
) -> None:
    """All cells have one timestamp: HBase then goes by the order of its write-ahead log."""
    absent = msgspec.structs.replace(absent, regions=1)
    await migrate_hbase(absent)
    for number in range(3):
        put = segment(1, 9, sealed=b"%d" % number)
        async with open_hbase(absent) as tier:
            await tier.cold.put([put], [])
            assert await tier.cold.read(put.key, Seq(0), Seq(9)) == [put]
        # A region that closes writes its memory into a file of its own.
        async with connected(absent, random.Random()) as pool:
            await pool.call("disableTable", table_name(absent.table), seconds=60.0)
            await pool.call("enableTable", table_name(absent.table), seconds=60.0)
        async with open_hbase(absent) as tier:
            assert await tier.cold.read(put.key, Seq(0), Seq(9)) == [put]


async def test_nothing_is_migrated_where_no_server_is(hbase_server: Settings) -> None:
    async with Proxy(hbase_server.host, hbase_server.port) as proxy:
        settings = msgspec.structs.replace(hbase_server, port=proxy.port, backoff_seconds=0.01)
    with pytest.raises(TierUnavailable, match="does not answer"):
        await migrate_hbase(settings)


async def test_a_server_that_is_away_at_the_start_serves_once_it_is_back(absent: Settings) -> None:
    """What must be known of the table is learnt then, whether somebody asks or not."""
    await migrate_hbase(absent)
    async with Proxy(absent.host, absent.port) as proxy:
        proxy.refusing = True
        settings = msgspec.structs.replace(absent, port=proxy.port, backoff_seconds=0.01)
        async with open_hbase(settings) as tier, asyncio.TaskGroup() as group:
            watching = group.create_task(tier.table.watch())
            health = tier.health(needed=False)
            with pytest.raises(TierUnavailable, match="does not answer"):
                await tier.cold.metadata(ConversationKey(1))
            assert health.failure() == "tier_unavailable"
            proxy.refusing = False
            async with asyncio.timeout(20.0):
                while health.failure():
                    await asyncio.sleep(0.05)
            assert await tier.cold.metadata(ConversationKey(1)) is None
            watching.cancel()


async def test_a_wrong_table_found_late_is_refused_and_not_served(absent: Settings) -> None:
    async with Proxy(absent.host, absent.port) as proxy:
        proxy.refusing = True
        settings = msgspec.structs.replace(absent, port=proxy.port, retry_seconds=0.01, attempts=1)
        async with open_hbase(settings) as tier:
            proxy.refusing = False
            async with asyncio.timeout(20.0):
                while True:
                    with pytest.raises(TierUnavailable) as refused:
                        await tier.cold.metadata(ConversationKey(1))
                    if "trunkline migrate" in refused.value.detail:
                        break
                    await asyncio.sleep(0.05)
