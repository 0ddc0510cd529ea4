"""A cluster as its operator runs it: a settings file, and `trunkline serve` as a process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import msgspec
from command_line import SECONDS, started

from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.mysql.settings import Settings as MysqlSettings

UNLIMITED = {
    f"{what}_{limit}": 1_000_000
    for what, limit in (
        ("sends", "per_second"), ("send", "burst"), ("named", "per_second"), ("named", "burst"),
        ("joined", "per_second"), ("joined", "burst"),
    )
}  # fmt: skip


class Tiers(msgspec.Struct, frozen=True):
    """Where a cluster's tiers are. `redis` is `host:port`; `prefix` is that of its keys; `tls`
    are the settings of each way to them."""

    mysql: MysqlSettings
    redis: str
    hbase: HbaseSettings
    prefix: str = "trunkline"
    tls: Mapping[str, str | bool] = MappingProxyType({})


def settings_file(folder: Path, tiers: Tiers, services: Mapping[str, float] = UNLIMITED) -> Path:
    """Settings of a cluster on these tiers, with a node's directory in the same folder."""
    tls = [f"{name} = {json.dumps(value)}" for name, value in tiers.tls.items()]
    lines = [
        'tiers = "cluster"',
        f'data = "{folder / "node"}"',
        "[gateway]\nport = 0\n[ops]\nport = 0",
        "[services]",
        *(f"{name} = {value}" for name, value in services.items()),
        f'[mysql]\npassword = "{tiers.mysql.password}"',
        *tls,
    ]
    lines += [
        f'[[mysql.databases]]\nhost = "{place.host}"\nport = {place.port}\n'
        f'database = "{place.database}"\nshards = {list(place.shards)}'
        for place in tiers.mysql.databases
    ]
    hbase = tiers.hbase
    lines += [
        f'[redis]\nnodes = ["{tiers.redis}"]\nprefix = "{tiers.prefix}"',
        *tls,
        f'[hbase]\nhost = "{hbase.host}"\nport = {hbase.port}\ntable = "{hbase.table}"',
        f"regions = {hbase.regions}\ncall_seconds = {hbase.call_seconds}",
        *tls,
    ]
    file = folder / "cluster.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


class ClusterProcess:
    """`trunkline serve --workers 2` with its children. `told` is what it said on listening."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.told = told

    def children(self, option: str = "") -> list[int]:
        """Process ids of its children; those only whose command line has `option`."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split() if option in _command_line(int(pid))]

    def workers(self) -> list[int]:
        """Process ids of those that serve."""
        return self.children("--as-worker")

    def stop(self) -> None:
        """Drains it; it must end in order."""
        self.process.terminate()
        self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0


@contextmanager
def cluster_process(config: Path, log: IO[str] | int, *options: object) -> Iterator[ClusterProcess]:
    """Two workers and an archiver; what they log goes to `log`. Whoever wants to, stops it."""
    with started(
        "serve", "--config", config, "--workers", 2, "--json", "--until-stdin-closes",
        *options,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the cluster did not start: its log says why"
        cluster = ClusterProcess(process, json.loads(line))
        try:
            yield cluster
        finally:
            if process.poll() is None:
                cluster.stop()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""
