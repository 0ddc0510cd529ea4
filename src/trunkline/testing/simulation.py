"""Command that runs the simulation over many seeds: `python -m trunkline.testing.simulation`.

Everything that happens in a run follows from its seed; a seed that breaks a promise is
printed with the command that replays it.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import msgspec
import structlog

from trunkline.client import Client
from trunkline.testing.loop import SimulatedLoop
from trunkline.testing.server import SimulatedServer
from trunkline.testing.world import World


class Outcome(msgspec.Struct, frozen=True):
    """What a seed's run came to; `broken` is empty if all promises were kept."""

    seed: int
    broken: str
    fingerprint: str
    entries: int
    steps: int
    seconds: float
    log: tuple[str, ...]

    @property
    def replay(self) -> str:
        """The command that runs the seed again."""
        return f"python -m trunkline.testing.simulation --seed {self.seed} -v"


def run_seed(
    seed: int,
    *,
    server_type: type[SimulatedServer] = SimulatedServer,
    client_type: type[Client] = Client,
    workers: int | None = None,
) -> Outcome:
    """Runs one seed; never raises for what the code under test does.

    `workers` share the stores; None: as many as the seed says.
    """
    with _no_collector():
        return _run_seed(seed, server_type, client_type, workers)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keeps the garbage collector out of a run.

    It would end the coroutines that a crash abandoned at a moment which no seed decides, and
    what they do last would be a step of the loop.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _run_seed(
    seed: int,
    server_type: type[SimulatedServer],
    client_type: type[Client],
    workers: int | None,
) -> Outcome:
    loop = SimulatedLoop(seed)
    asyncio.set_event_loop(loop)
    world = World(seed, loop, server_type=server_type, client_type=client_type, workers=workers)
    broken = fingerprint = ""
    entries = 0
    with structlog.testing.capture_logs() as logged:
        try:
            history = loop.run_until_complete(world.run())
            entries = sum(there.head for there in history.values())
            fingerprint = world.fingerprint(history)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it is what this seed found
            broken = "".join(traceback.format_exception(error))
        finally:
            _end(loop)
    faults = [str(event) for event in logged if event["log_level"] in ("error", "critical")]
    broken = broken or "\n".join(faults + loop.faults)
    return Outcome(seed, broken, fingerprint, entries, loop.steps, loop.time(), tuple(world.log))


def _end(loop: SimulatedLoop) -> None:
    """Ends what a broken run left behind, so that the next seed starts from nothing."""
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=60.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the seeds; returns the exit code: 1 if one of them broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.testing.simulation")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (100)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="what happened in each run")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (one a CPU)"
    )
    options = parser.parse_args(arguments)
    seeds = range(options.start, options.start + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    failed = entries = 0
    began = time.monotonic()
    for outcome in _outcomes(seeds, min(options.workers, len(seeds))):
        entries += outcome.entries
        if options.verbose:
            _say("\n".join(outcome.log))
            _say(
                f"seed {outcome.seed}: {outcome.entries} entries, {outcome.steps} steps, "
                f"{outcome.seconds:.0f} s of virtual time, fingerprint {outcome.fingerprint}"
            )
        if outcome.broken:
            failed += 1
            _say(f"seed {outcome.seed} FAILED\n{outcome.broken}\nreplay: {outcome.replay}")
    took = time.monotonic() - began
    _say(f"{len(seeds)} seeds, {failed} failed, {entries} entries, {len(seeds) / took:.1f} seeds/s")
    return 1 if failed else 0


def _outcomes(seeds: Sequence[int], workers: int) -> Iterator[Outcome]:
    """The seeds' outcomes in their order, as they come."""
    if workers <= 1:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_seed, seeds, chunksize=4)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
