"""A cluster as its operator runs it: settings, migrate, workers, an archiver, replay, audit."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hbase_tables
import pytest
from addresses import address_of, mariadb_servers, require_server
from cluster_process import ClusterProcess, Tiers, cluster_process, settings_file
from command_line import run, run_json, started, wait_for
from databases import everywhere, own_databases

from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.replay.demonstration import SAMPLE

LINES = 400
SECONDS = 60


def tiers_named(name: str) -> Tiers:
    """The tests' servers with databases, keys and a table that are called `name`."""
    redis = address_of("redis", "127.0.0.1:26379")
    require_server("Redis", *redis)
    host, port = address_of("hbase", "127.0.0.1:26092")
    require_server("HBase", host, port)
    return Tiers(
        own_databases(mariadb_servers(), name),
        "{}:{}".format(*redis),
        HbaseSettings(host=host, port=port, table=name, regions=4),
        prefix=name,
    )


@pytest.fixture
def config(tmp_path: Path, worker_id: str) -> Iterator[Path]:
    """Settings of a cluster of this test's own, with nothing made yet."""
    name = f"trunkline_e2e_{worker_id}"
    tiers = tiers_named(name)
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE IF EXISTS {name}"))
    asyncio.run(hbase_tables.drop(tiers.hbase))
    asyncio.run(everywhere(mariadb_servers(), f"CREATE DATABASE {name}"))
    yield settings_file(tmp_path, tiers)
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE {name}"))
    asyncio.run(hbase_tables.drop(tiers.hbase))


@pytest.fixture
def cluster(config: Path) -> Iterator[ClusterProcess]:
    assert run("migrate", "--config", config).returncode == 0
    with cluster_process(config, subprocess.DEVNULL) as cluster:
        yield cluster


def test_a_replay_over_two_workers_is_complete_and_the_audit_clean(
    cluster: ClusterProcess, config: Path
) -> None:
    """I1, I2, I6, I7, I14, with real Redis, two databases and HBase."""
    result = run_json("replay", SAMPLE, "--config", config, "--limit", LINES, "--online", "0.4")
    assert result["acked"] == result["messages"] == LINES
    assert result["endpoints_complete"] == result["endpoints"] > 0
    assert result["digest_mismatches"] == 0
    report = run_json("audit", "--config", config)
    assert report["entries"] > LINES
    assert report["findings"] == []
    assert len(cluster.told["processes"]) == 3


def test_a_worker_that_is_killed_is_started_again(cluster: ClusterProcess, config: Path) -> None:
    """Its clients come back, nothing acknowledged is lost."""
    with started(
        "replay", SAMPLE, "--config", config, "--limit", LINES, "--json", stdout=subprocess.PIPE
    ) as replay:
        before = cluster.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(cluster.workers()) - set(before)) == 1)
        out, _ = replay.communicate(timeout=SECONDS)
    result = json.loads(out)
    assert result["acked"] == LINES
    assert result["endpoints_complete"] == result["endpoints"]
    assert run_json("audit", "--config", config)["findings"] == []


def test_migrate_twice_changes_nothing(config: Path) -> None:
    first = run_json("migrate", "--config", config)
    assert [bool(made) for made in first.values()] == [True, True, True]
    assert [bool(made) for made in run_json("migrate", "--config", config).values()] == [False] * 3


def test_a_cluster_that_was_not_migrated_does_not_start(config: Path) -> None:
    done = run("serve", "--config", config)
    assert done.returncode == 3
    assert done.stderr.startswith("trunkline: keyring_missing: ")


def test_another_keyring_than_the_databases_does_not_start(config: Path) -> None:
    assert run("migrate", "--config", config).returncode == 0
    keyring = config.parent / "node" / "keyring.json"
    keyring.unlink()
    done = run("migrate", "--config", config)
    assert done.returncode == 3
    assert "keyring_wrong" in done.stderr


def test_a_database_that_is_not_there_is_said_in_one_line(config: Path) -> None:
    assert run("migrate", "--config", config).returncode == 0
    port = mariadb_servers().databases[0].port
    config.write_text(config.read_text().replace(f"port = {port}", "port = 1"))
    done = run("serve", "--config", config)
    assert done.returncode == 4
    lines = [line for line in done.stderr.splitlines() if line.startswith("trunkline: ")]
    assert len(set(lines)) == 1
    assert "storage_unavailable" in lines[0]


def test_a_replay_without_a_running_cluster_says_how_to_start_it(config: Path) -> None:
    done = run("replay", SAMPLE, "--config", config)
    assert done.returncode == 4
    assert f"trunkline serve --config {config}" in done.stderr


def test_a_settings_file_is_checked(config: Path) -> None:
    assert run("config", "check", config).returncode == 0
    shown = run_json("config", "check", config)
    assert "password" not in shown["mysql"]
    config.write_text(config.read_text() + "\nunknown = 1\n")
    done = run("config", "check", config)
    assert done.returncode == 3
    assert "unknown" in done.stderr


def test_workers_need_a_cluster(tmp_path: Path) -> None:
    done = run("serve", "--data", tmp_path / "data", "--workers", 2)
    assert done.returncode == 2
    assert "cluster" in done.stderr
