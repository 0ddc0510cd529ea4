"""Starts and ends what a measurement needs: the floor, the server, the generator."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
BUILD = BENCH / "build"
GENERATOR = BUILD / "generator"
SERVER_LOG = BUILD / "server.log"
TRUNKLINE = Path(sys.executable).with_name("trunkline")

SERVER_CORE, GENERATOR_CORE = "0", "1"
START_SECONDS = 60
STOP_SECONDS = 60
# The generator's set-up sends faster than a person may; the check itself stays on.
ENVIRONMENT = {
    "TRUNKLINE_SERVICES__SENDS_PER_SECOND": "1000000",
    "TRUNKLINE_SERVICES__SEND_BURST": "1000000",
    "TRUNKLINE_SERVICES__NAMED_PER_SECOND": "1000000",
    "TRUNKLINE_SERVICES__NAMED_BURST": "1000000",
}


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


@dataclass(frozen=True)
class Running:
    """A server under load: where it listens, its process, and the key of its tokens.

    `pids`: the processes whose CPU counts, where these are not `process`; `stores`: those
    of databases that work for them; `beside`: what no message waits for; `settings`: a
    cluster's file.
    """

    address: str
    process: subprocess.Popen[bytes]
    ops: str = ""
    key_id: str = "bench"
    secret: str = ""
    pids: str = ""
    stores: str = ""
    beside: str = ""
    settings: str = ""


def build_generator() -> None:
    """Compiles the generator; Go's own cache makes that cheap where nothing changed."""
    if shutil.which("go") is None:
        raise BenchError("The generator needs Go 1.21 or newer (`go` is not on the path).")
    BUILD.mkdir(exist_ok=True)
    subprocess.run(["go", "build", "-o", GENERATOR, "."], cwd=BENCH / "generator", check=True)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_core(core: str, *command: str | Path) -> list[str]:
    """The command, bound with all its children to one core."""
    return ["taskset", "--cpu-list", core, *map(str, command)]


def others_share(seconds: float = 1.0) -> float:
    """How much of a core is in use, as a share of one, while nothing of ours runs."""
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _busy_ticks() -> int:
    # user, nice, system, idle, iowait, irq, softirq, steal
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    return sum(int(field) for field in fields[:3] + fields[5:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process in order, or by force if it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
            raise BenchError(f"A server did not stop within {STOP_SECONDS} s.") from None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Pulls the plug."""
    process.kill()
    process.wait(STOP_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            code = process.returncode
            raise BenchError(f"The server ended with code {code} at its start: {SERVER_LOG.name}.")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError(f"Nothing listens on port {port} after {START_SECONDS} s.")


@contextmanager
def floor() -> Iterator[Running]:
    """The floor, on the server's core."""
    port = free_port()
    command = on_core(SERVER_CORE, sys.executable, BENCH / "floor.py", "--port", str(port))
    process = subprocess.Popen(command)
    try:
        _wait_for(port, process)
        yield Running(f"127.0.0.1:{port}", process)
    finally:
        stop(process)


def launch(data: Path) -> Running:
    """Starts a server on a data directory that has its token keys, and does not wait for it."""
    port, ops_port = free_port(), free_port()
    command = on_core(
        SERVER_CORE, TRUNKLINE, "serve", "--data", data, "--host", "127.0.0.1",
        "--port", str(port), "--ops-port", str(ops_port), "--log-level", "warning",
    )  # fmt: skip
    with SERVER_LOG.open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=log
        )
    key = {"kid": "", "secret": ""}
    if (tokens := data / "tokens.json").exists():
        key = json.loads(tokens.read_bytes())["keys"][0]
    return Running(f"127.0.0.1:{port}", process, f"127.0.0.1:{ops_port}", key["kid"], key["secret"])


def start(data: Path) -> Running:
    """Starts a server on a new or an old data directory and waits until it listens."""
    running = launch(data)
    try:
        _wait_for(int(running.address.rpartition(":")[2]), running.process)
        key = json.loads((data / "tokens.json").read_bytes())["keys"][0]
    except BaseException:
        kill(running.process)
        raise
    return Running(running.address, running.process, running.ops, key["kid"], key["secret"])


@contextmanager
def server(name: str) -> Iterator[Running]:
    """A server on an empty data directory, which is removed afterwards."""
    with data_directory(name) as data:
        running = start(data)
        try:
            yield running
        finally:
            stop(running.process)


@contextmanager
def data_directory(name: str) -> Iterator[Path]:
    """The path of a data directory that is not there yet, removed afterwards."""
    data = BUILD / f"data-{name}"
    shutil.rmtree(data, ignore_errors=True)
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)


def generator_command(running: Running, scenario: str, flags: dict[str, Any]) -> list[str]:
    """The generator's command line; flags are its own, without their dash."""
    arguments = [f"-{name}={value}" for name, value in flags.items()]
    return on_core(
        GENERATOR_CORE, GENERATOR, "-json", "-scenario", scenario, "-address", running.address,
        "-pids", running.pids or str(running.process.pid),
        "-stores", running.stores, "-beside", running.beside, "-key-id", running.key_id,
        "-secret", running.secret, *arguments,
    )  # fmt: skip


def generate(
    running: Running, scenario: str, flags: dict[str, Any], timeout_seconds: float = 600
) -> dict[str, Any]:
    """Runs one scenario to its end; raises `BenchError` if it could not be measured."""
    try:
        ended = subprocess.run(
            generator_command(running, scenario, flags),
            stdout=subprocess.PIPE, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"{scenario}: not done within {timeout_seconds:.0f} s.") from None
    if ended.returncode not in (0, 1):  # 1: measured, and something was lost or out of order
        raise BenchError(f"{scenario}: the generator ended with code {ended.returncode}.")
    return dict(json.loads(ended.stdout))


def metric(running: Running, name: str) -> float:
    """The value of one of the server's metrics without labels."""
    with urllib.request.urlopen(f"http://{running.ops}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise BenchError(f"{name} is not among the server's metrics.")
