"""Clusters of a test's own on the tests' servers: their settings, and their processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hbase_tables
from addresses import address_of, mariadb_servers, require_server
from command_line import started
from databases import everywhere

from trunkline.adapters.hbase.settings import Settings as HbaseSettings

SECONDS = 60


def settings_file(folder: Path, name: str) -> Path:
    """Settings of a cluster on the tests' servers whose databases are called `name`."""
    lines = [
        'tiers = "cluster"',
        f'data = "{folder / "node"}"',
        "[gateway]\nport = 0\n[ops]\nport = 0",
        "[services]\nsends_per_second = 1000000\nsend_burst = 1000000",
    ]
    servers = mariadb_servers()
    lines.append(f'[mysql]\npassword = "{servers.password}"')
    lines += [
        f'[[mysql.databases]]\nhost = "{place.host}"\nport = {place.port}\n'
        f'database = "{name}"\nshards = {list(place.shards)}'
        for place in servers.databases
    ]
    host, port = address_of("redis", "127.0.0.1:26379")
    require_server("Redis", host, port)
    lines.append(f'[redis]\nnodes = ["{host}:{port}"]\nprefix = "{name}"')
    host, port = address_of("hbase", "127.0.0.1:26092")
    require_server("HBase", host, port)
    lines.append(f'[hbase]\nhost = "{host}"\nport = {port}\ntable = "{name}"\nregions = 4')
    file = folder / "cluster.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@contextmanager
def own_cluster(folder: Path, name: str) -> Iterator[Path]:
    """The settings of a cluster of this name, with nothing made yet; nothing stays of it."""
    host, port = address_of("hbase", "127.0.0.1:26092")
    table = HbaseSettings(host=host, port=port, table=name)
    file = settings_file(folder, name)
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE IF EXISTS {name}"))
    asyncio.run(hbase_tables.drop(table))
    asyncio.run(everywhere(mariadb_servers(), f"CREATE DATABASE {name}"))
    yield file
    asyncio.run(everywhere(mariadb_servers(), f"DROP DATABASE {name}"))
    asyncio.run(hbase_tables.drop(table))


class Cluster:
    """`trunkline serve --workers 2` as a process."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.told = told

    def workers(self) -> list[int]:
        """Process ids of its children."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]


@contextmanager
def running(config: Path, *options: object) -> Iterator[Cluster]:
    """The workers and the archiver of a migrated cluster, drained at the end; they log into
    `server.log` beside the settings.
    """
    with (
        (config.parent / "server.log").open("a", encoding="utf-8") as log,
        started(
            "serve", "--config", config, "--workers", 2, "--json", *options,
            stdout=subprocess.PIPE, stderr=log,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        yield Cluster(process, json.loads(process.stdout.readline()))
        process.terminate()
        process.communicate(timeout=SECONDS)
        assert process.returncode == 0
