"""A cluster is started, and its workers are again, while tiers are away: the rest serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hbase_tables
import msgspec
from addresses import mariadb_servers, shared_hbase, shared_redis
from cluster_process import ClusterProcess, Tiers, settings_file
from clusters import running
from command_line import SECONDS, run, wait_for
from databases import everywhere, own_databases

from trunkline.core.ids import shard_hash, single_conversation_id
from trunkline.model import UserId
from trunkline.testing.proxy import Proxy


def pair_on(database: int) -> tuple[str, str]:
    """Two users who stand in one of the two databases, as their conversation does."""

    def there(name: str) -> bool:
        return (shard_hash(UserId(name)) >= 512) == (database == 2)

    users = [UserId(f"u{number}") for number in range(200) if there(f"u{number}")]
    return next(
        (one, other)
        for one in users
        for other in users
        if one != other and there(single_conversation_id(one, other))
    )


@asynccontextmanager
async def proxied(folder: Path, name: str) -> AsyncIterator[tuple[Path, list[Proxy]]]:
    """A migrated cluster, and the proxies that all its tiers but one database are behind."""
    hbase, mysql = shared_hbase(name), own_databases(mariadb_servers(), name)
    redis_host, redis_port = shared_redis().rsplit(":", 1)
    await everywhere(
        mariadb_servers(), f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}"
    )
    await hbase_tables.drop(hbase)
    one, two = mysql.databases
    async with (
        Proxy(hbase.host, hbase.port) as cold,
        Proxy(redis_host, int(redis_port)) as cached,
        Proxy(one.host, one.port) as first,
    ):
        through = msgspec.structs.replace(one, host="127.0.0.1", port=first.port)
        tiers = Tiers(
            msgspec.structs.replace(mysql, databases=(through, two)),
            f"127.0.0.1:{cached.port}",
            msgspec.structs.replace(hbase, host="127.0.0.1", port=cold.port),
            prefix=name,
        )
        config = settings_file(folder, tiers)
        done = await asyncio.to_thread(run, "migrate", "--config", config)
        assert done.returncode == 0, done.stderr
        yield config, [cold, cached, first]
    await everywhere(mariadb_servers(), f"DROP DATABASE {name}")
    await hbase_tables.drop(hbase)


def ready(ops_url: str) -> tuple[int, dict[str, str]]:
    """What `/readyz` answers: the status, and what fails of each tier that does."""
    try:
        with urllib.request.urlopen(f"{ops_url}/readyz", timeout=SECONDS) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    report: dict[str, Any] = json.loads(body)
    return status, {t["tier"]: t["failure"] for t in report["tiers"] if t.get("failure")}


class Served:
    """Asks a running cluster."""

    def __init__(self, config: Path, cluster: ClusterProcess) -> None:
        self._data = config.parent / "node"
        self._urls = cluster.told["processes"][:2]

    def says(self, users: tuple[str, str]) -> bool:
        """Whether a message is stored now."""
        one, other = users
        done = run("send", "--data", self._data, "--user", one, "--to", other, "--timeout", 2, "hi")
        return done.returncode == 0

    def hears(self, users: tuple[str, str]) -> bool:
        """Whether the other one gets what was said."""
        one, other = users
        tail = run("tail", "--data", self._data, "--user", other, one, "--once", "--json")
        return '"hi"' in tail.stdout

    def failing(self) -> list[tuple[int, dict[str, str]]]:
        """What each worker's `/readyz` answers."""
        return [ready(url) for url in self._urls]


def away_and_back(config: Path, leave: Callable[[], None], come_back: Callable[[], None]) -> None:
    """Starts the cluster while all but the second database is away, kills the workers, and lets
    everything come back.
    """
    healthy, lost = pair_on(2), pair_on(1)
    leave()
    with running(config) as cluster:
        served = Served(config, cluster)
        for status, failures in served.failing():
            assert status == 200
            assert sorted(tier.split(" ")[0] for tier in failures) == ["cached", "cold", "database"]
        assert served.says(healthy)
        assert not served.says(lost)
        before = cluster.workers()
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: served.says(healthy), SECONDS)
        assert not set(cluster.workers()) & set(before)
        assert served.hears(healthy)
        come_back()
        wait_for(lambda: served.says(lost), SECONDS)
        assert served.hears(lost)


async def test_a_cluster_starts_restarts_and_serves_while_a_tier_is_away(
    tmp_path: Path, worker_id: str
) -> None:
    """Given HBase, Redis and the first of two databases away."""
    async with proxied(tmp_path, f"trunkline_away_{worker_id}") as (config, proxies):
        loop = asyncio.get_running_loop()

        def leave() -> None:
            for proxy in proxies:
                proxy.refusing = True
                proxy.reset_all()

        def come_back() -> None:
            for proxy in proxies:
                proxy.refusing = False

        await asyncio.to_thread(
            away_and_back, config,
            lambda: loop.call_soon_threadsafe(leave),
            lambda: loop.call_soon_threadsafe(come_back),
        )  # fmt: skip
