"""A Thrift server of HBase's that is a test's own, to be killed and paused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_server import free_port

START_SECONDS = 60.0
SCRIPT = Path(__file__).parents[2] / "deploy" / "local" / "hbase.sh"


class PrivateThrift:
    """One more Thrift server in front of the HBase that `make cluster-up` started."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [SCRIPT, "thrift", str(self.port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + START_SECONDS
        while not self._listens():
            assert time.monotonic() < until, f"Thrift does not listen: {self._log}"
            if self._process.poll() is not None:
                _missing(f"a Thrift server of the test's own does not start: {self._log}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP: it takes connections and answers nothing; SIGCONT: it goes on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


@contextmanager
def private_thrift(log: Path) -> Iterator[PrivateThrift]:
    """A started server, killed after."""
    server = PrivateThrift(log)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
