"""Runs the scenarios on the floor and on servers of their own, and prints the table."""

import argparse
import sys
import time
from contextlib import nullcontext
from typing import Any

import beside
import cluster
import hot_spots
import report
import start_recover
from bars import CLUSTER_SCENARIOS, SCENARIOS, Scenario, judge
from processes import (
    BENCH,
    BenchError,
    Running,
    build_generator,
    floor,
    generate,
    metric,
    server,
)

RESULTS = BENCH / "results"
ARCHIVE_WAIT_SECONDS = 120


def flags_of(scenario: Scenario, options: argparse.Namespace) -> dict[str, Any]:
    """The generator's flags for a scenario."""
    timed = {"length": f"{options.seconds}s"} if scenario.timed else {}
    return scenario.flags | timed


def archived_after(running: Running) -> float:
    """Seconds until all that was committed is archived, at most ARCHIVE_WAIT_SECONDS."""
    begin = time.monotonic()
    while (waited := time.monotonic() - begin) < ARCHIVE_WAIT_SECONDS:
        archived = metric(running, "trunkline_archived_entries_total")
        if archived >= metric(running, "trunkline_entries_total"):
            break
        time.sleep(0.5)
    return round(waited, 1)


def measure_server(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One scenario on a server of its own."""
    scenario = options.table[name]
    if scenario.generator == "start":
        return start_recover.measure(options.messages, load_seconds=10)
    flags = flags_of(scenario, options)
    if options.cluster:
        opened = cluster.server(name, scenario.workers, scenario.cores, scenario.environment)
    else:
        opened = server(name)
    with opened as running:
        if scenario.generator == "beside":
            return beside.measure(running, options.seconds)
        if scenario.generator in ("herd", "history"):
            flags["metrics"] = running.ops
        if scenario.evicts:
            flags["between"] = (
                f"{sys.executable} {BENCH}/evict.py {scenario.evicts} {running.settings}"
            )
        with cluster.cold_away() if scenario.cold_away else nullcontext():
            result = generate(running, scenario.generator, flags)
        if scenario.archived:
            result["archived_after_seconds"] = archived_after(running)
    return result


def measure_floor(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One scenario on the floor, which has nothing that could drift: a part of the time will do."""
    scenario = options.table[name]
    flags = flags_of(scenario, options) | {"length": f"{min(options.seconds, 10)}s"}
    with floor() as running:
        return generate(running, scenario.generator, flags)


def better_floor(name: str, options: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    """The better of the floor before the server's run and after it: others disturb it, too."""
    after = measure_floor(name, options)
    return max(before, after, key=lambda r: (r.get("acked_per_second", 0.0), -r["delivery_p99_ms"]))


def measure_all(
    options: argparse.Namespace,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], list[str]]:
    """Results of the server and of the floor by scenario, and what could not be measured."""
    results: dict[str, dict[str, Any]] = {}
    floors: dict[str, dict[str, Any]] = {}
    failed = []
    for name in options.scenarios:
        print(f"bench: {options.table[name].title}", file=sys.stderr, flush=True)
        try:
            if options.table[name].floor:
                floors[name] = measure_floor(name, options)
            if not options.floor_only:
                results[name] = measure_server(name, options)
            if options.table[name].floor:
                floors[name] = better_floor(name, options, floors[name])
        except BenchError as error:
            failed.append(f"{name}: {error}")
            print(f"bench: {error}", file=sys.stderr, flush=True)
    return results, floors, failed


def parse() -> argparse.Namespace:
    """The options; a run of everything writes its results and a profile."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench/run")
    known = ", ".join(SCENARIOS)
    of_cluster = ", ".join(CLUSTER_SCENARIOS)
    parser.add_argument("scenarios", nargs="*", metavar="NAME", help=f"all, or some of: {known}")
    parser.add_argument(
        "--cluster",
        action="store_true",
        help=f"on the tiers of `make cluster-up`; then the scenarios are: {of_cluster}",
    )
    parser.add_argument("--seconds", type=int, default=60, help="of load where it counts (60)")
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="that `start` stores first (1,000,000)"
    )
    parser.add_argument("--floor-only", action="store_true", help="measure the floor alone")
    parser.add_argument(
        "--profile",
        type=int,
        metavar="SECONDS",
        help="profile the server under 64 pairs, 32 in flight, afterwards (10 in a run of all)",
    )
    parser.add_argument("--write", action="store_true", help="write results/ (a run of all does)")
    options = parser.parse_args()
    options.table = CLUSTER_SCENARIOS if options.cluster else SCENARIOS
    if unknown := set(options.scenarios) - set(options.table):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {known}")
    if not options.scenarios and not options.floor_only:
        options.write = True
        if not options.cluster:
            options.profile = 10 if options.profile is None else options.profile
    options.scenarios = options.scenarios or list(options.table)
    return options


def profiled(seconds: int | None) -> str:
    """The profile as Markdown, empty if none is wanted."""
    if not seconds:
        return ""
    with server("profile") as running:
        return hot_spots.record(running, seconds)


def main() -> int:
    """Measures, prints, writes.

    Returns 1 if a bar was missed or something could not be measured, also because others
    used the machine.
    """
    options = parse()
    build_generator()
    results, floors, failed = measure_all(options)
    profile = profiled(options.profile)
    lines = judge(options.table, results, floors)
    report.show(lines, results, floors)
    if profile:
        print(profile)
    if options.write:
        report.write(
            RESULTS, "cluster" if options.cluster else "embedded", lines, results, floors, profile
        )
    missed = [line for line in lines if line.met is False or (line.bar and line.disturbed)]
    wrong = [name for name, result in results.items() if not result["correct"]]
    for name in wrong:
        print(f"bench: {name}: something was lost, double or out of order", file=sys.stderr)
    return 1 if failed or missed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
