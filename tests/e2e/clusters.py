"""Clusters of a test's own on the tests' servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hbase_tables
from addresses import mariadb_servers, shared_hbase, shared_redis
from cluster_process import ClusterProcess, Tiers, cluster_process, settings_file
from databases import everywhere, own_databases


@contextmanager
def own_cluster(folder: Path, name: str) -> Iterator[Path]:
    """The settings of a cluster of this name, with nothing made yet; nothing stays of it."""
    tiers = Tiers(
        own_databases(mariadb_servers(), name), shared_redis(), shared_hbase(name), prefix=name
    )
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE IF EXISTS {name}"))
    asyncio.run(hbase_tables.drop(tiers.hbase))
    asyncio.run(everywhere(mariadb_servers(), f"CREATE DATABASE {name}"))
    yield settings_file(folder, tiers)
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE {name}"))
    asyncio.run(hbase_tables.drop(tiers.hbase))


@contextmanager
def running(config: Path, *options: object) -> Iterator[ClusterProcess]:
    """The workers and the archiver of a migrated cluster, drained at the end; they log into
    `server.log` beside the settings.
    """
    with (
        (config.parent / "server.log").open("a", encoding="utf-8") as log,
        cluster_process(config, log, *options) as cluster,
    ):
        yield cluster
