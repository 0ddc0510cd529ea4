"""Measures the start with a million messages, and the recovery after kill -9 under load."""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from processes import (
    Running,
    build_generator,
    data_directory,
    generate,
    generator_command,
    kill,
    launch,
    others_share,
    start,
    stop,
)

LOAD = {"n": 64, "w": 32, "warm": "0s"}
READY_SECONDS = 120


def seconds_to_first_ack(data: Path) -> tuple[float, Running]:
    """Starts the server; returns seconds from its launch to the first message it acknowledged."""
    begin_ms = time.time() * 1000
    running = launch(data)
    flags = {"length": f"{READY_SECONDS}s"}
    result = generate(running, "ready", flags, timeout_seconds=2 * READY_SECONDS)
    return (result["ready_unix_ms"] - begin_ms) / 1000, running


def kill_under_load(running: Running, seconds: float) -> None:
    """Pulls the plug while the load is on; what the generator says then does not count."""
    command = generator_command(running, "pairs", LOAD | {"length": "600s"})
    load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(seconds)
        kill(running.process)
    finally:
        kill(load)


def measure(messages: int, load_seconds: float) -> dict[str, Any]:
    """Fills a data directory with so many messages, then starts and recovers it.

    Returns `start_seconds` and `recovery_seconds`, each from the launch of the process to
    its first acknowledgement.
    """
    with data_directory("start") as data:
        running = start(data)
        try:
            filled = generate(running, "pairs", LOAD | {"messages": messages})
            stop(running.process)
            others = others_share()
            start_seconds, running = seconds_to_first_ack(data)
            kill_under_load(running, load_seconds)
            others = max(others, others_share())
            recovery_seconds, running = seconds_to_first_ack(data)
        finally:
            stop(running.process)
    return {
        "scenario": "start",
        "messages": filled["acked"],
        "start_seconds": round(start_seconds, 2),
        "recovery_seconds": round(recovery_seconds, 2),
        "load_seconds": load_seconds,
        "others_cpu_share": round(others, 3),
        "correct": filled["correct"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--load-seconds", type=float, default=10.0)
    options = parser.parse_args()
    build_generator()
    print(json.dumps(measure(options.messages, options.load_seconds), indent=1))
