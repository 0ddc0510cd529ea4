"""Servers of the campaigns' own, and how often each campaign strikes."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
pytest.register_assert_rewrite("crowd", "puller", "cluster_under_load", "under_load")

import hbase_tables  # noqa: E402
from addresses import mariadb_servers, shared_hbase  # noqa: E402
from cluster_process import Tiers  # noqa: E402
from cluster_under_load import Strikes  # noqa: E402
from databases import everywhere, own_databases  # noqa: E402
from lossy_inbox import Weather  # noqa: E402
from redis_server import PrivateRedis, private_redis  # noqa: E402

from trunkline.adapters.hbase.settings import Settings as HbaseSettings  # noqa: E402
from trunkline.adapters.mysql.settings import Settings as MysqlSettings  # noqa: E402
from trunkline.testing.proxy import Proxy  # noqa: E402


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the power cuts out unless they are asked for."""
    if collection_path.name == "test_power_cut.py" and not config.getoption("--power-cuts"):
        return True
    return None


@pytest.fixture
def strikes(rounds: int) -> Strikes:
    """How often a campaign strikes."""
    return Strikes(rounds)


@pytest.fixture
def chance(rounds: int) -> random.Random:
    """Draws the moments at which a campaign strikes."""
    return random.Random(rounds)


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], None]:
    """Shows a campaign's figures."""

    def write(line: str) -> None:
        with capfd.disabled():
            sys.stdout.write(f"\n{request.node.name}: {line}\n")

    return write


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A Redis that may be killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with private_redis(folder) as server:
        yield server


@pytest.fixture
def campaign(worker_id: str) -> str:
    """What databases and table are called."""
    return f"trunkline_fault_{worker_id}_{os.getpid()}"


@pytest.fixture
def databases(campaign: str) -> Iterator[MysqlSettings]:
    """Empty databases on both shared servers."""
    servers = mariadb_servers()
    asyncio.run(everywhere(servers, f"CREATE DATABASE {campaign}"))
    yield own_databases(servers, campaign)
    asyncio.run(everywhere(servers, f"DROP DATABASE {campaign}"))


@pytest.fixture
def table(campaign: str) -> Iterator[HbaseSettings]:
    """A table's place on the shared HBase; nothing is made yet."""
    settings = shared_hbase(campaign)
    yield settings
    asyncio.run(hbase_tables.drop(settings))


@pytest.fixture
def tiers(redis_process: PrivateRedis, databases: MysqlSettings, table: HbaseSettings) -> Tiers:
    """A Redis that may be killed, and databases and a table that are the campaign's own."""
    return Tiers(databases, redis_process.address, table)


@pytest.fixture
def weather(chance: random.Random) -> Weather:
    """What befalls the messages between the workers of `lossy_tiers`."""
    return Weather(chance)


@pytest.fixture
async def lossy_tiers(tiers: Tiers, weather: Weather) -> AsyncIterator[Tiers]:
    """The same tiers; messages between workers get lost and delayed behind Redis."""
    host, _, port = tiers.redis.rpartition(":")
    async with Proxy(host, int(port)) as proxy:
        proxy.filtered = weather.inbox
        yield msgspec.structs.replace(tiers, redis=f"127.0.0.1:{proxy.port}")
