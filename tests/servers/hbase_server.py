"""An HBase with its Thrift server that is a test's own; its JVM is killed and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from addresses import state_directory
from redis_server import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "local" / "hbase.sh"
PORTS_FROM_BASE = (0, 1, 2, 92)
"""Of master, region server, ZooKeeper and Thrift, as the script lays them out."""
START_SECONDS = 180.0
END_SECONDS = 10.0


class PrivateHbase:
    """One JVM with master, region server and ZooKeeper, and a Thrift server before it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where its data and logs go."""
        jars = state_directory() / "hbase" / "jars"
        (folder / "hbase").mkdir(parents=True)
        (folder / "hbase" / "jars").symlink_to(jars.resolve())
        self._folder = folder
        self._base = _free_base()
        self.port = self._base + PORTS_FROM_BASE[-1]

    def start(self) -> None:
        """Starts what does not run and waits until it serves; the log is read back first."""
        own = {"CLUSTER_STATE": str(self._folder), "CLUSTER_HBASE_PORT": str(self._base)}
        with (self._folder / "script.log").open("ab") as log:
            done = subprocess.run(
                [SCRIPT, "up"], env=os.environ | own, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, timeout=START_SECONDS, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"HBase does not start: {self._folder}"

    def kill(self) -> None:
        """Kills the JVM of HBase, its Thrift server stays."""
        self._end("hbase")

    def close(self) -> None:
        """Kills both."""
        self._end("thrift")
        self._end("hbase")

    def _end(self, name: str) -> None:
        file = self._folder / f"{name}.pid"
        if not file.exists():
            return
        pid = int(file.read_text())
        file.unlink()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + END_SECONDS
        while _runs(pid):
            assert time.monotonic() < until, f"{name} was killed and runs"
            time.sleep(0.01)


@contextmanager
def private_hbase(folder: Path) -> Iterator[PrivateHbase]:
    """A started one, killed after."""
    server = PrivateHbase(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _runs(pid: int) -> bool:
    """Whether the process is there, and not only for its parent to look at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _free_base() -> int:
    while True:
        base = free_port()
        if all(_is_free(base + offset) for offset in PORTS_FROM_BASE):
            return base


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True
