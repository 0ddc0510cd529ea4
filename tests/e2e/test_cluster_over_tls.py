"""A cluster whose ways to all three tiers are TLS, with certificates on both sides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import hbase_tables
import msgspec
from addresses import shared_hbase
from certificates import Authority, mariadb_options, redis_options, terminating
from cluster_process import Tiers, settings_file
from clusters import running
from command_line import run, run_json
from mariadb_server import private_mariadb
from redis_server import private_redis

from trunkline.replay.demonstration import SAMPLE
from trunkline.testing.proxy import Proxy

LINES = 200


def replay_and_audit(config: Path) -> None:
    """What was said is complete at every endpoint, and whole in the tiers."""
    assert run("migrate", "--config", config).returncode == 0
    with running(config):
        result = run_json("replay", SAMPLE, "--config", config, "--limit", LINES)
        assert result["acked"] == LINES
        assert result["endpoints_complete"] == result["endpoints"] > 0
        assert run_json("audit", "--config", config)["findings"] == []


async def test_a_cluster_does_its_work_over_tls_alone(tmp_path: Path, worker_id: str) -> None:
    """Given tiers that take nobody without a certificate."""
    hbase = shared_hbase(f"trunkline_tls_{worker_id}")
    authority = Authority(tmp_path, "authority")
    trusted = authority.trusted()
    client = authority.issue("redis-client")
    await hbase_tables.drop(hbase)
    with (
        private_redis(tmp_path, *redis_options(authority, "yes"), tls=True, client=client) as redis,
        private_mariadb(
            tmp_path / "mariadb", *mariadb_options(authority), require="REQUIRE X509"
        ) as mariadb,
    ):
        async with Proxy(hbase.host, hbase.port, Random(1), tls=terminating(authority)) as thrift:
            through = msgspec.structs.replace(hbase, host="127.0.0.1", port=thrift.port)
            tiers = Tiers(mariadb.whole(), redis.address, through, tls=trusted)
            await asyncio.to_thread(replay_and_audit, settings_file(tmp_path, tiers))
            assert thrift.opened
    await hbase_tables.drop(hbase)
