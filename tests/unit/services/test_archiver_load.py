"""The archiver yields to the sends: it slows down by halves and comes back by steps."""

from __future__ import annotations

import asyncio
import random

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.services.archiver import Archiver
from trunkline.services.batch_load import BatchLoad
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.loop import SimulatedLoop

ENTRIES = 40_000
RATE = 4_000
SLOWEST = RATE * 0.02


class SetLoad:
    """A load that the test sets; it counts the questions."""

    def __init__(self) -> None:
        self.busy = False
        self.asked = 0

    async def is_busy(self) -> bool:
        self.asked += 1
        return self.busy


def test_it_slows_down_while_sends_wait_and_recovers_after() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        clock = SimulatedClock(loop)
        sealer = KeyringSealer(Keyring("test", 1, {1: bytes(32)}))
        hot, writer, metrics, load = MemoryHotStore(clock), Writer(sealer), Metrics(), SetLoad()
        await writer.append(hot, writer.create("g", "ann", "c"))
        drafts = [writer.message("g", "ann", f"{n:06}") for n in range(ENTRIES - 1)]
        await writer.append(hot, *drafts)
        archiver = Archiver(
            hot, hot.tasks, MemoryColdStore(), sealer, clock, metrics,
            ServiceSettings(archive_entries_per_second=RATE, archive_interval_seconds=0.1), load,
            random.Random(1).getrandbits,
        )  # fmt: skip

        async def archived_within(seconds: float) -> float:
            before = value("trunkline_archived_entries_total")
            await asyncio.sleep(seconds)
            return value("trunkline_archived_entries_total") - before

        def value(name: str) -> float:
            return metrics.registry.get_sample_value(name) or 0.0

        async with asyncio.TaskGroup() as group:
            group.create_task(archiver.run())
            assert await archived_within(1.0) > 0.8 * RATE
            load.busy = True
            await asyncio.sleep(8.0)
            assert value("trunkline_archive_pace_entries") == SLOWEST
            assert 0 < await archived_within(10.0) < 20 * SLOWEST
            assert value("trunkline_archive_yields_total") > 6
            load.busy = False
            await asyncio.sleep(6.0)
            assert await archived_within(1.0) > 0.6 * RATE
            assert value("trunkline_archived_entries_total") < ENTRIES
            assert load.asked <= 4 * clock.monotonic()
            archiver.close()

    try:
        loop.run_until_complete(main())
        assert not loop.faults
    finally:
        loop.close()


async def test_more_batches_a_second_than_set_are_busy() -> None:
    clock = SteppedClock()
    taken = 0
    load = BatchLoad(lambda: taken, clock, busy_batches_per_second=50)
    for seconds, batches, busy in (
        (1.0, 50, False),
        (1.0, 51, True),
        (0.1, 6, True),
        (10, 0, False),
    ):
        clock.advance(seconds)
        taken += batches
        assert await load.is_busy() is busy
