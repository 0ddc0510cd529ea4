"""The servers of deploy/local, as the tests reach them."""

from __future__ import annotations

import os
import socket

import pytest

from trunkline.adapters.mysql.settings import DatabaseSettings, Settings


def require_server(name: str, host: str, port: int, start: str = "make cluster-up") -> None:
    """Skips what needs a server that is not there; where CI runs, that is a failure."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        message = f"NOT TESTED: no {name} on {host}:{port}; `{start}` starts it."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def mariadb_servers() -> Settings:
    """Both MariaDB servers, half of the shards on each."""
    ports = os.environ.get("TRUNKLINE_TEST_MARIADB", "33061 33062").split()
    for port in ports:
        require_server("MariaDB", "127.0.0.1", int(port))
    return Settings(
        databases=tuple(
            DatabaseSettings(port=int(port), shards=shards)
            for port, shards in zip(ports, ((0, 511), (512, 1023)), strict=True)
        ),
        password="trunkline",
    )


def mysql8_server() -> Settings:
    """Oracle's MySQL 8.0 with all shards in one database."""
    host, port = os.environ.get("TRUNKLINE_TEST_MYSQL8", "127.0.0.1:33080").rsplit(":", 1)
    require_server("MySQL 8.0", host, int(port), "deploy/local/mysql8.sh up")
    return Settings(databases=(DatabaseSettings(host=host, port=int(port)),), password="trunkline")
