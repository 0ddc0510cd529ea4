"""A MariaDB process of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis_server import free_port, missing

from trunkline.adapters.mysql.settings import DatabaseSettings, Settings

START_SECONDS = 60.0


class PrivateMariadb:
    """Holds the database `trunkline`, whose user has the rights that the howto names."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._socket = folder / "mariadb.sock"
        user = pwd.getpwuid(os.getuid()).pw_name
        self._common = [f"--datadir={folder / 'data'}", f"--user={user}"]
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *self._common, "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.process = subprocess.Popen(
            ["mariadbd", "--no-defaults", *self._common, f"--socket={self._socket}",
             f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve",
             "--performance-schema=0", "--innodb-buffer-pool-size=32M", *self._options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.sql("SELECT 1").returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"mariadbd on port {self.port} does not start")

    def sql(self, statements: str) -> subprocess.CompletedProcess[str]:
        """Runs statements as root."""
        return subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", "-S", str(self._socket), "-N", "-e", statements],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def settings(self, **more: object) -> Settings:
        """Settings of all shards in this server's database."""
        place = DatabaseSettings(host="127.0.0.1", port=self.port)
        return Settings(databases=(place,), password="trunkline", **more)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def private_mariadb(folder: Path, *options: str, require: str = "") -> Iterator[PrivateMariadb]:
    """A started server, killed after; `require`: what its user must show, such as SSL."""
    if shutil.which("mariadbd") is None:
        missing("mariadbd is not installed: `make cluster-up` installs it")
    server = PrivateMariadb(folder, *options)
    try:
        server.start()
        made = server.sql(
            "CREATE DATABASE trunkline CHARACTER SET binary;"
            f"CREATE USER trunkline@'127.0.0.1' IDENTIFIED BY 'trunkline' {require};"
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX"
            " ON trunkline.* TO trunkline@'127.0.0.1'"
        )
        assert made.returncode == 0, made.stderr
        yield server
    finally:
        server.kill()
