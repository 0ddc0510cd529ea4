"""Writes a run down: the table as Markdown and on the terminal, everything as JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bars import Line, is_disturbed

HEADINGS = ("scenario", "figure", "measured", "floor or base", "share", "bar", "met")
SYNCS = 300


def machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on; `sync_ms` is the median of a synced 4 KiB append."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "sync_ms": round(_sync_ms(folder), 3),
    }


def _sync_ms(folder: Path) -> float:
    path = folder / "sync-probe"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            begin = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - begin))
    path.unlink()
    return statistics.median(took)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}".removesuffix(".0")


def cells(line: Line) -> tuple[str, ...]:
    """A line as text."""
    share = "" if line.share is None else f"{line.share:.3f}"
    met = {None: "", True: "yes", False: "NO"}[line.met]
    if line.disturbed and met:
        met += " (disturbed)"
    return (
        line.scenario, line.figure, _number(line.value), _number(line.floor), share, line.bar, met,
    )  # fmt: skip


def show(
    lines: Sequence[Line], results: dict[str, dict[str, Any]], floors: dict[str, dict[str, Any]]
) -> None:
    """Prints the table, the floor in words, and who was disturbed by other processes."""
    table = Table(*HEADINGS)
    before = ""
    for line in lines:
        first, *rest = cells(line)
        table.add_row("" if first == before else first, *rest)
        before = first
    console = Console(width=None if os.isatty(1) else 150)
    if lines:
        console.print(table)
    for name, result in floors.items():
        console.print(
            f"floor {name}: delivery p99 {result['delivery_p99_ms']:.1f} ms, the generator at "
            f"{result['generator_cpu_share']:.0%} of its core",
            highlight=False,
        )
    runs = results | {f"floor {name}": result for name, result in floors.items()}
    for name, result in runs.items():
        if is_disturbed(result):
            others = result["others_cpu_share"]
            console.print(f"disturbed: {name}, others took {others:.2f} of a core", highlight=False)


def write(
    folder: Path,
    name: str,
    lines: Sequence[Line],
    results: dict[str, dict[str, Any]],
    floors: dict[str, dict[str, Any]],
    profile: str,
) -> None:
    """Writes NAME.json and NAME.md into the folder."""
    folder.mkdir(exist_ok=True)
    when = datetime.now(UTC)
    on = machine(folder)
    whole = {"at": when.isoformat(timespec="seconds"), "machine": on, "server": results,
             "floor": floors}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    rows = ["| " + " | ".join(row) + " |" for row in (HEADINGS, *map(cells, lines))]
    rows.insert(1, "|---" * len(HEADINGS) + "|")
    conditions = (
        f"{on['processor']}, {on['cores']} cores, Linux {on['kernel']}, Python {on['python']}; "
        f"a synced append of 4 KiB takes {on['sync_ms']} ms. The server with all its processes "
        "on core 0, the generator on core 1; `bench/run` makes this file."
    )
    text = [f"# Figures of {when:%Y-%m-%d}", "", conditions, "", *rows, ""]
    text += ["Cores that were busy meanwhile, as shares of one:", "", *_usage(results, floors)]
    if profile:
        text += ["", profile]
    (folder / f"{name}.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def _usage(results: dict[str, dict[str, Any]], floors: dict[str, dict[str, Any]]) -> list[str]:
    """How busy the cores were: a generator near 1 was the bottleneck, others near 1 disturbed."""
    rows = ["| run | generator | server | others | server, µs each |", "|---|---|---|---|---|"]
    for kind, runs in (("", results), ("floor: ", floors)):
        for name, result in runs.items():
            if "generator_cpu_share" in result:
                shares = [
                    f"{result.get(f'{who}_cpu_share', 0):.2f}"
                    for who in ("generator", "server", "others")
                ]
                each = [v for k, v in result.items() if k.startswith("server_cpu_us_per_")]
                cost = _number(each[0]) if each else ""
                rows.append(f"| {kind}{name} | {' | '.join(shares)} | {cost} |")
    return rows
