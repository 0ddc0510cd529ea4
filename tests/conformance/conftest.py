"""What all conformance tests share: assertions that explain themselves, and a writer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.register_assert_rewrite("trunkline.testing.conformance")

from databases import SERVERS, emptied, made_anew  # noqa: E402

from trunkline.adapters.keyring import open_keyring  # noqa: E402
from trunkline.adapters.mysql.settings import Settings  # noqa: E402
from trunkline.testing.conformance import Writer  # noqa: E402


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Settings:
    """Databases of this process: two on MariaDB, one on MySQL 8.0."""
    return asyncio.run(made_anew(SERVERS[request.param]()))


@pytest.fixture
def settings(server: Settings) -> Iterator[Settings]:
    """The same, empty before and after."""
    yield server
    asyncio.run(emptied(server))
