"""Pairs with one message in flight beside a hot conversation; then alone, as fast."""

import subprocess
import time
from typing import Any

from processes import Running, generate, generator_command, kill

HOT = {"n": 64, "w": 1, "entries": 100_000_000}
AT_WORK_SECONDS = 2.0
PAIRS = 64


def measure(running: Running, seconds: int) -> dict[str, Any]:
    """The pairs' figures beside the hot conversation.

    `alone_p99_ms`: of as many pairs that send as many messages a second to an idle server;
    `p99_ratio`: by how much it is worse beside.
    """
    flags = {"w": 1, "zipf": PAIRS, "length": f"{seconds}s"}
    hot = subprocess.Popen(
        generator_command(running, "hot", HOT), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(AT_WORK_SECONDS)
        beside = generate(running, "pairs", flags)
    finally:
        kill(hot)
    time.sleep(AT_WORK_SECONDS)
    pace = round(beside["acked_per_second"])
    alone = generate(running, "pairs", flags | {"pace": pace})
    ratio = beside["ack_p99_ms"] / alone["ack_p99_ms"]
    return beside | {
        "alone_per_second": alone["acked_per_second"],
        "alone_p99_ms": alone["ack_p99_ms"],
        "p99_ratio": ratio,
        "correct": beside["correct"] and alone["correct"],
    }
