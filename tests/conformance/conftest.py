"""What all conformance tests share: assertions that explain themselves, a writer, real servers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
pytest.register_assert_rewrite("trunkline.testing.conformance")

import hbase_tables  # noqa: E402
from addresses import shared_hbase  # noqa: E402
from databases import SERVERS, emptied, made_anew  # noqa: E402

from trunkline.adapters.hbase.settings import Settings as HbaseSettings  # noqa: E402
from trunkline.adapters.keyring import Keyring, KeyringSealer, open_keyring  # noqa: E402
from trunkline.adapters.mysql.settings import Settings  # noqa: E402
from trunkline.testing.conformance import Writer  # noqa: E402


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


@pytest.fixture
def sealers() -> tuple[KeyringSealer, KeyringSealer]:
    """One that wraps with KEK 1, and one that has it too and wraps with KEK 2."""
    before = Keyring("before", 1, {1: b"1" * 32})
    after = before.with_key(b"2" * 32).with_current(2)
    old, new = KeyringSealer(before), KeyringSealer(after)
    new.verify_sentinel(old.sentinel())
    return old, new


@pytest.fixture(scope="session")
def hbase_server(worker_id: str) -> HbaseSettings:
    """Where HBase is; the table that it names is not made."""
    return shared_hbase(f"trunkline_test_{worker_id}_{os.getpid()}")


@pytest.fixture(scope="session")
def hbase_table(hbase_server: HbaseSettings) -> Iterator[HbaseSettings]:
    """A table of this worker's own."""
    asyncio.run(hbase_tables.make(hbase_server))
    yield hbase_server
    asyncio.run(hbase_tables.drop(hbase_server))


@pytest.fixture
async def hbase(hbase_table: HbaseSettings) -> HbaseSettings:
    """The worker's table, with nothing in it."""
    await hbase_tables.empty(hbase_table)
    return hbase_table


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Settings:
    """Databases of this process: two on MariaDB, one on MySQL 8.0."""
    return asyncio.run(made_anew(SERVERS[request.param]()))


@pytest.fixture
def settings(server: Settings) -> Iterator[Settings]:
    """The same, empty before and after."""
    yield server
    asyncio.run(emptied(server))
