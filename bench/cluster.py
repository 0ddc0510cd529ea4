"""A server on the tiers that `make cluster-up` started, all of them on the server's core."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from evict import evict_cached
from processes import (
    BUILD,
    ENVIRONMENT,
    GENERATOR_CORE,
    SERVER_CORE,
    SERVER_LOG,
    START_SECONDS,
    TRUNKLINE,
    BenchError,
    Running,
    free_port,
    on_core,
    stop,
)
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.settings import Settings
from trunkline.config import load

ROOT = BUILD.parents[1]
SETTINGS = ROOT / "deploy" / "cluster.toml"
STATE = ROOT / ".cluster"
DATABASE = "trunkline_bench"
COLD = ("hbase", "thrift")
NOTHING_ELSE: Mapping[str, str] = {}


def pin(cores: str) -> tuple[str, str]:
    """Binds the servers, with all their threads, to cores; returns the pids of these and of HBase.

    What a message waits for shares these; HBase, which nothing waits for but pulls of old
    history, is on the generator's.
    """
    pids = {file.stem: file.read_text().strip() for file in STATE.glob("*.pid")}
    if not pids:
        raise BenchError("No cluster runs here: `make cluster-up` starts it.")
    for name, pid in pids.items():
        there = cores if name not in COLD else GENERATOR_CORE
        command = ["taskset", "--all-tasks", "--cpu-list", "--pid", there, pid]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    stores = [pid for name, pid in pids.items() if name not in COLD]
    return ",".join(stores), ",".join(pids[name] for name in COLD)


@contextmanager
def server(
    name: str, workers: int, cores: str = SERVER_CORE, environment: Mapping[str, str] = NOTHING_ELSE
) -> Iterator[Running]:
    """A server of so many workers on empty databases of its own, and the tiers, on these cores."""
    stores, cold = pin(cores)
    data = BUILD / f"data-{name}"
    shutil.rmtree(data, ignore_errors=True)
    settings = _settings_file(data)
    asyncio.run(_make_databases(load(settings, {}, {}).mysql))
    subprocess.run([TRUNKLINE, "migrate", "--config", settings], check=True, capture_output=True)
    command = on_core(
        cores, TRUNKLINE, "serve", "--config", settings, "--workers", str(workers), "--json"
    )
    with SERVER_LOG.open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        if not told:
            raise BenchError(f"The cluster's server did not start: {SERVER_LOG}.")
        listening = json.loads(told)
        key = json.loads((data / "tokens.json").read_bytes())["keys"][0]
        yield Running(
            listening["url"].split("/")[2],
            process,
            listening["ops_url"].removeprefix("http://"),
            key["kid"],
            key["secret"],
            _children_of(process.pid, "--as-worker"),
            stores,
            f"{cold},{_children_of(process.pid, 'archiver')}",
            str(settings),
        )
    finally:
        stop(process)
        evict_cached(load(settings, {}, {}), ("*",))
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def cold_away() -> Iterator[None]:
    """HBase's Thrift server answers nothing, while the server's archiver asks."""
    thrift = int((STATE / "thrift.pid").read_text())
    os.kill(thrift, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(thrift, signal.SIGCONT)


def _settings_file(data: Path) -> Path:
    """The settings of deploy/, with other names for everything that is kept."""
    text = SETTINGS.read_text(encoding="utf-8")
    text = re.sub(r"^data = .*$", f'data = "{data}"', text, flags=re.MULTILINE)
    text = text.replace("[[mysql.databases]]\n", f'[[mysql.databases]]\ndatabase = "{DATABASE}"\n')
    text = text.replace("[redis]\n", f'[redis]\nprefix = "{DATABASE}"\n')
    text = text.replace("[hbase]\n", f'[hbase]\ntable = "{DATABASE}"\n')
    text += f"\n[gateway]\nport = {free_port()}\n[ops]\nport = 0\n"
    data.mkdir(parents=True)
    file = data / "cluster.toml"
    file.write_text(text, encoding="utf-8")
    return file


async def _make_databases(settings: Settings) -> None:
    for place in settings.databases:
        # Of two databases of one server any may be dropped from within the other.
        home = Database(settings, msgspec.structs.replace(place, database="trunkline"), lambda: 0.5)
        await home.query(f"DROP DATABASE IF EXISTS {DATABASE}")
        await home.query(f"CREATE DATABASE {DATABASE}")
        await home.close()


def _children_of(pid: int, word: str) -> str:
    """The processes below the one that keeps them, with this word in their command."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "--", word],
        capture_output=True, text=True, check=False, timeout=START_SECONDS,
    )  # fmt: skip
    return ",".join(found.stdout.split())
