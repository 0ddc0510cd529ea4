"""Archiving from real MariaDB databases to a real HBase, and the audit of what it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from databases import SERVERS, LaterTasks, Leases, emptied, made_anew

from trunkline.adapters.hbase.opening import open_hbase
from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import open_mysql
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.tasks import TaskStore
from trunkline.services.audit import Audit
from trunkline.testing.conformance import ArchivingSuite, SteppedClock, Writer


@dataclass
class OpenStores:
    hot: HotStore
    tasks: TaskStore
    cold: ColdStore


class TiersMaker:
    def __init__(self, mysql: Settings, hbase: HbaseSettings) -> None:
        self.clock = SteppedClock()
        self._mysql = mysql
        self._hbase = hbase
        self._leases = Leases(mysql, self.clock)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[OpenStores]:
        async with open_mysql(self._mysql, self.clock) as hot, open_hbase(self._hbase) as cold:
            tasks = LaterTasks(hot.tasks, self._leases)
            yield OpenStores(hot.hot, tasks, cold.cold)  # type: ignore[arg-type]

    async def crash(self) -> None:
        """The servers outlive their archivers."""


@pytest.fixture(scope="module")
def databases() -> Settings:
    return asyncio.run(made_anew(SERVERS["mariadb"]()))


@pytest.fixture
def make_store(databases: Settings, hbase: HbaseSettings, writer: Writer) -> Iterator[TiersMaker]:
    """Stores that are audited once the test is over."""
    yield TiersMaker(databases, hbase)

    async def audited() -> None:
        async with MysqlInspection(databases) as hot, open_hbase(hbase) as cold:
            report = await Audit(hot, cold.inspection, writer.sealer, SystemClock()).run()
        assert report.counted.entries > 0
        assert [str(finding) for finding in report.findings] == []

    try:
        asyncio.run(audited())
    finally:
        asyncio.run(emptied(databases))


class TestArchiving(ArchivingSuite): ...
