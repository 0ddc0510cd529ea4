"""Runs the command as a user does, and servers of it that end with the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "trunkline.cli.main"]
SECONDS = 90


def run(*arguments: object, input: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `trunkline ARGUMENTS` to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=input, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def run_json(*arguments: object) -> Any:
    """What `trunkline ARGUMENTS --json` says; it must end with 0."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`trunkline ARGUMENTS` as a process, which does not outlive the test."""
    with subprocess.Popen([*COMMAND, *map(str, arguments)], text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(data: Path, *arguments: object) -> Iterator[dict[str, Any]]:
    """A server on a data directory; yields what `serve --json` says. Drained at the end."""
    with started(
        "serve", "--data", data, "--port", 0, "--ops-port", 0, "--json", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(SECONDS) == 0


def wait_for(condition: Any, seconds: float = 30.0) -> Any:
    """The condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{condition} did not become true within {seconds} s")


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
