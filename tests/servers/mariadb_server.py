"""A MariaDB process of a test's own, to be killed and restarted; it keeps what it committed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_server import free_port

from trunkline.adapters.mysql.settings import DatabaseSettings, Settings

START_SECONDS = 60.0
# As deploy/local/mariadb.sh: a worker refuses a server that may lose what it committed.
CONFIGURATION = """[mysqld]
user={user}
datadir={folder}/data
socket={folder}/socket
pid-file={folder}/pid
port={port}
bind-address=127.0.0.1
server_id=1
log_bin=bin
binlog_format=ROW
sync_binlog=1
innodb_flush_log_at_trx_commit=1
innodb_buffer_pool_size=64M
innodb_log_file_size=32M
max_connections=200
performance_schema=0
skip_name_resolve=1
"""
GRANTS = """CREATE DATABASE trunkline CHARACTER SET binary;
CREATE USER IF NOT EXISTS trunkline@'127.0.0.1' IDENTIFIED BY 'trunkline' {require};
GRANT ALL ON `trunkline%`.* TO trunkline@'127.0.0.1';
"""


class PrivateMariadb:
    """A MariaDB on a free port with its data in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("mariadbd") is None:
            missing = "mariadbd is not installed: `make cluster-up` installs it"
            if os.environ.get("CI") == "true":
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._options = options
        self._defaults = f"--defaults-file={folder / 'cnf'}"
        text = CONFIGURATION.format(user=_user(), folder=folder, port=self.port)
        (folder / "cnf").write_text(text, encoding="utf-8")
        with self._log.open("ab") as log:
            subprocess.run(
                ["mariadb-install-db", self._defaults, "--skip-test-db",
                 "--auth-root-authentication-method=socket", f"--auth-root-socket-user={_user()}"],
                stdout=log, stderr=log, check=True,
            )  # fmt: skip

    def settings(self, name: str) -> Settings:
        """Two databases `<name>_1` and `<name>_2` on it, half of the shards in each."""
        halves = ((0, 511), (512, 1023))
        databases = tuple(
            DatabaseSettings(port=self.port, shards=shards, database=f"{name}_{number}")
            for number, shards in enumerate(halves, 1)
        )
        return Settings(databases=databases, password="trunkline")

    def whole(self, **more: object) -> Settings:
        """One database `trunkline` on it with all shards."""
        place = DatabaseSettings(host="127.0.0.1", port=self.port)
        return Settings(databases=(place,), password="trunkline", **more)  # type: ignore[arg-type]

    def start(self) -> None:
        """Starts it and waits until it answers; what a crash left is recovered first."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["mariadbd", self._defaults, *self._options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + START_SECONDS
        while self._sql("SELECT 1").returncode:
            assert self._process.poll() is None, f"MariaDB ended: {self._log}"
            assert time.monotonic() < until, f"MariaDB does not answer: {self._log}"
            time.sleep(0.05)

    def execute(self, statements: str) -> None:
        """Runs statements as the administrator: who started it, over the socket."""
        done = self._sql(statements)
        assert done.returncode == 0, done.stderr

    def end(self, number: signal.Signals) -> None:
        """Kills it, or lets it shut down in order (SIGTERM); waits for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def _sql(self, statements: str) -> subprocess.CompletedProcess[str]:
        command = [
            "mariadb",
            "--no-defaults",
            f"-u{_user()}",
            "-S",
            str(self.folder / "socket"),
            "-N",
        ]
        return subprocess.run(
            [*command, "-e", statements], capture_output=True, text=True, check=False
        )


@contextmanager
def private_mariadb(folder: Path, *options: str, require: str = "") -> Iterator[PrivateMariadb]:
    """A started server with the user that a cluster logs in as, killed after.

    `require`: what the user must show, such as SSL.
    """
    folder.mkdir()
    server = PrivateMariadb(folder, *options)
    try:
        server.start()
        server.execute(GRANTS.format(require=require))
        yield server
    finally:
        server.end(signal.SIGKILL)


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
