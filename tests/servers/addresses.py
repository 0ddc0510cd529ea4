"""Where the real servers are that adapters are tested on, and what to do without one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.mysql.settings import DatabaseSettings, Settings

_CONNECT_SECONDS = 3.0


def address_of(name: str, default: str) -> tuple[str, int]:
    """Host and port of a server: `CLUSTER_TEST_<NAME>` of the environment, or the default."""
    host, _, port = os.environ.get(f"CLUSTER_TEST_{name.upper()}", default).rpartition(":")
    return host, int(port)


def require_server(name: str, host: str, port: int, start: str = "make cluster-up") -> None:
    """Skips the test if nothing listens there; in continuous integration (`CI=true`) it fails."""
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        missing = f"{name} is not at {host}:{port} ({error}): `{start}` starts it"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


def mariadb_servers() -> Settings:
    """Both MariaDB servers, half of the shards on each."""
    places = [
        address_of("mariadb1", "127.0.0.1:33061"),
        address_of("mariadb2", "127.0.0.1:33062"),
    ]
    for place in places:
        require_server("MariaDB", *place)
    return Settings(
        databases=tuple(
            DatabaseSettings(host=host, port=port, shards=shards)
            for (host, port), shards in zip(places, ((0, 511), (512, 1023)), strict=True)
        ),
        password="trunkline",
    )


def mysql8_server() -> Settings:
    """Oracle's MySQL 8.0 with all shards in one database."""
    host, port = address_of("mysql8", "127.0.0.1:33080")
    require_server("MySQL 8.0", host, port, "deploy/local/mysql8.sh up")
    return Settings(databases=(DatabaseSettings(host=host, port=port),), password="trunkline")


def shared_redis() -> str:
    """`host:port` of the Redis that tests share by prefixes of their own."""
    host, port = address_of("redis", "127.0.0.1:26379")
    require_server("Redis", host, port)
    return f"{host}:{port}"


def shared_hbase(table: str) -> HbaseSettings:
    """The HBase that tests share by tables of their own; the one named here is not made."""
    host, port = address_of("hbase", "127.0.0.1:26092")
    require_server("HBase", host, port)
    return HbaseSettings(host=host, port=port, table=table, regions=4)


def state_directory() -> Path:
    """Where the servers that `deploy/local` starts keep data and logs; for tests that look
    into their files, and so need them on this machine.
    """
    state = Path(os.environ.get("CLUSTER_STATE", Path(__file__).parents[2] / ".cluster"))
    if not (state / "hbase" / "data").is_dir():
        missing = f"{state} holds no files of the servers: `make cluster-up` starts them"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return state
