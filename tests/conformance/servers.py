"""Where the real servers are that adapters are tested on, and what to do without one."""

from __future__ import annotations

import os
import socket

import pytest

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
