"""Where the real servers are that adapters are tested on, and what to do without one."""

from __future__ import annotations

import os
import socket

import pytest

from trunkline.adapters.mysql.settings import DatabaseSettings, Settings

_CONNECT_SECONDS = 3.0


def address_of(name: str, default: str) -> tuple[str, int]:
    """Host and port of a server: `TRUNKLINE_TEST_<NAME>` of the environment, or the default."""
    host, _, port = os.environ.get(f"TRUNKLINE_TEST_{name.upper()}", default).rpartition(":")
    return host, int(port)


def require_server(name: str, host: str, port: int) -> None:
    """Skips the test if nothing listens there; in continuous integration (`CI=true`) it fails."""
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        missing = f"{name} is not at {host}:{port} ({error}): `make cluster-up` starts it"
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


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
