"""Where the server's time goes under load: its processes' CPU, and py-spy's samples of each."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import BUILD, GENERATOR_CORE, BenchError, Running, generator_command, kill, on_core

SAMPLES_PER_SECOND = 250
ROWS = 20
WARM_SECONDS = 3
PROCESS = re.compile(r"process (\d+):.*?(?: -m ([\w.]+)|$)")
THREAD = re.compile(r"thread \(\d+\): (.*)")
# A thread of a pool with nothing to do, which py-spy takes for busy now and then.
IDLE = "_worker (concurrent/futures/thread.py)"
# What stands above everything and therefore tells nothing.
ABOVE = re.compile(r"\((?:click|cli|uvloop|asyncio|concurrent|threading|<frozen)")


@dataclass
class Samples:
    """One process's samples by function: on top of the stack, anywhere in it, by thread."""

    name: str = "server"
    own: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    threads: Counter[str] = field(default_factory=Counter)


def record(running: Running, seconds: int, flags: dict[str, Any] | None = None) -> str:
    """Profiles the server under 64 pairs with 32 in flight; returns Markdown.

    The first half is not sampled, since sampling slows the server: it tells how the CPU is
    split between the processes. `flags` are more flags of the generator.
    """
    raw = BUILD / "profile.raw"
    load = subprocess.Popen(
        generator_command(running, "pairs", {"w": 32, "length": "600s"} | (flags or {})),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(WARM_SECONDS)
        before = cpu_seconds(running.process.pid)
        time.sleep(seconds)
        after = cpu_seconds(running.process.pid)
        command = on_core(
            GENERATOR_CORE, Path(sys.executable).with_name("py-spy"), "record", "--native",
            "--subprocesses", "--threads", "--format", "raw", "--rate", str(SAMPLES_PER_SECOND),
            "--duration", str(seconds), "--pid", str(running.process.pid), "--output", raw,
        )  # fmt: skip
        sampled = subprocess.run(command, check=False, capture_output=True, text=True)
    finally:
        kill(load)
    if sampled.returncode:
        raise BenchError(f"py-spy could not sample the server: {sampled.stderr[-500:]}")
    used = {pid: (after[pid] - before.get(pid, 0.0)) / seconds for pid in after}
    return markdown(parse(raw.read_text(encoding="utf-8")), used)


def cpu_seconds(parent: int) -> dict[int, float]:
    """Processor time that a process and its children have used so far."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since it was listed
        if parent in (int(path.name), int(fields[1])):
            ticks = int(fields[11]) + int(fields[12])
            found[int(path.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return found


def parse(raw: str) -> dict[int, Samples]:
    """py-spy's folded stacks (`frame;frame count` a line) by process."""
    processes: dict[int, Samples] = {}
    for line in raw.splitlines():
        stack, _, count_text = line.rpartition(" ")
        count = int(count_text)
        frames, thread, pid, module = [], "", 0, ""
        for frame in stack.split(";"):
            if (process := PROCESS.match(frame)) is not None:
                pid, module = int(process[1]), process[2] or ""
            elif (named := THREAD.match(frame)) is not None:
                thread = named[1]
            else:
                frames.append(_short(frame))
        python = [frame for frame in frames if ".py)" in frame]
        if python and python[-1] == IDLE:
            continue
        samples = processes.setdefault(pid, Samples(module or "server"))
        samples.own[frames[-1]] += count
        samples.threads[thread] += count
        for frame in set(frames):
            samples.whole[frame] += count
    return processes


def markdown(processes: dict[int, Samples], used: dict[int, float]) -> str:
    """A section for each process that was sampled: by own time, then by all it calls."""
    text = ["## Profile of 64 pairs, 32 in flight"]
    for pid, samples in sorted(processes.items(), key=lambda item: -used.get(item[0], 0)):
        total = sum(samples.own.values())
        threads = ", ".join(f"{n} {c / total:.0%}" for n, c in samples.threads.most_common(6))
        called = [
            (frame, count)
            for frame, count in samples.whole.most_common(4 * ROWS)
            if ".py)" in frame and not ABOVE.search(frame)
        ]
        share = f"{used.get(pid, 0):.2f} of the core while it was not sampled"
        text += [
            "",
            f"`{samples.name}`: {share}; by thread: {threads}.",
            "",
            "| function | own time | with what it calls |",
            "|---|---|---|",
            *(_row(samples, frame, total) for frame, _ in samples.own.most_common(ROWS)),
            "",
            "| Python function | own time | with what it calls |",
            "|---|---|---|",
            *(_row(samples, frame, total) for frame, _ in called[:ROWS]),
        ]
    return "\n".join(text)


def _row(samples: Samples, frame: str, total: int) -> str:
    return f"| `{frame}` | {samples.own[frame] / total:.1%} | {samples.whole[frame] / total:.1%} |"


def _short(frame: str) -> str:
    """A frame without its line number and its folders."""
    name, _, place = frame.partition(" (")
    file = place.rstrip(")").partition(":")[0]
    return f"{name} ({file.removeprefix('trunkline/')})" if file else name
