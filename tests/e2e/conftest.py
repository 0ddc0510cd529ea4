"""A real listener with real services over memory stores, started for one test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from cluster_process import ClusterProcess
from clusters import own_cluster, running
from command_line import run
from foreign_client import Server

from trunkline.adapters.jwt import TokenKey

StartServer = Callable[..., Awaitable[Server]]


@pytest_asyncio.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers with settings of the services, `await start_server(hello_seconds=0.5)`, and
    of the listener: `gateway={"strangers": 2}`.
    """
    servers: list[Server] = []

    async def start(
        *,
        gateway: dict[str, float] | None = None,
        keys: Sequence[TokenKey] = (),
        **services: float,
    ) -> Server:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = Server(folder, gateway=gateway or {}, keys=keys, services=services)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """A server as it is by default."""
    return await start_server()


@pytest.fixture
def config(tmp_path: Path, worker_id: str) -> Iterator[Path]:
    """Settings of a cluster of this test's own, with nothing made yet."""
    with own_cluster(tmp_path, f"trunkline_e2e_{worker_id}") as file:
        yield file


@pytest.fixture
def cluster(config: Path) -> Iterator[ClusterProcess]:
    """It runs, with two workers and an archiver."""
    assert run("migrate", "--config", config).returncode == 0
    with running(config) as process:
        yield process
