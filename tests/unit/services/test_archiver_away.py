"""While the cold tier is away the archiver waits, at no cost, and is back within seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore, MemoryTaskStore
from trunkline.errors import TierUnavailable
from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq
from trunkline.ports.tasks import ArchiveTask
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.conformance import Writer
from trunkline.testing.conformance.writer import view
from trunkline.testing.idle_load import IdleLoad
from trunkline.testing.loop import SimulatedLoop

SILENT_SECONDS = 10.0
AWAY_SECONDS = 180.0
BACK_SECONDS = 20.0
"""The longest pause, a question that is not answered, and the work."""
FAILURES = "trunkline_archive_failures_total"


class LostCold:
    """A cold store that does not answer while it is away, nor ever about some conversations,
    and refuses to take others.

    Attributes:
        lulls: how often it is asked for a row and answers although it is away.
    """

    def __init__(self) -> None:
        self.away = False
        self.lulls = 0
        self.lost: set[ConversationKey] = set()
        self.refused: set[ConversationKey] = set()
        self.asked_at: list[float] = []
        self._inner = MemoryColdStore()

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        keys = {segment.key for segment in segments}
        await self._answer(keys)
        if keys & self.refused:
            raise TierUnavailable("It refuses this: a cell is too large.")
        await self._inner.put(segments, metadata)

    async def read(self, key: ConversationKey, after: Seq, up_to: Seq) -> Sequence[Segment]:
        await self._answer({key})
        return await self._inner.read(key, after, up_to)

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.lulls:
            self.lulls -= 1
        else:
            await self._answer({key})
        return await self._inner.metadata(key)

    async def _answer(self, keys: set[ConversationKey]) -> None:
        if self.away or keys & self.lost:
            await asyncio.sleep(SILENT_SECONDS)
            raise TierUnavailable("It does not answer.")


class WatchedTasks:
    """A task store whose calls are written down, and how often each leased task had failed."""

    def __init__(self, tasks: MemoryTaskStore) -> None:
        self.calls: list[str] = []
        self.attempts: dict[str, int] = {}
        self._tasks = tasks

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        self.calls.append("lease")
        tasks = await self._tasks.lease(limit, lease_seconds)
        self.attempts |= {task.conversation.id: task.attempts for task in tasks}
        return tasks

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._tasks, name)


class House:
    """An archiver on memory stores, and groups of one entry each."""

    def __init__(self, loop: SimulatedLoop, seed: int = 1) -> None:
        clock = SimulatedClock(loop)
        self.hot, self.cold, self._metrics = MemoryHotStore(clock), LostCold(), Metrics()
        self.tasks: Any = WatchedTasks(self.hot.tasks)
        self._writer = Writer(KeyringSealer(Keyring("test", 1, {1: bytes(32)})))
        cold: Any = self.cold
        self.archiver = Archiver(
            self.hot, self.tasks, cold, self._writer.sealer, clock, self._metrics,
            ServiceSettings(), IdleLoad(), random.Random(seed).getrandbits,
        )  # fmt: skip

    async def append(self, *groups: str) -> list[ConversationKey]:
        await self._writer.append(self.hot, *(self._writer.create(g, "ann", "c") for g in groups))
        return [(await view(self.hot, "ann", group))[0].key for group in groups]

    async def waiting(self) -> int:
        return (await self.hot.tasks.waiting()).conversations

    def value(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, labels) or 0.0


def simulated(main: Callable[[SimulatedLoop], Coroutine[Any, Any, None]]) -> None:
    loop = SimulatedLoop(1)
    try:
        loop.run_until_complete(main(loop))
        assert not loop.faults
    finally:
        loop.close()


@pytest.mark.parametrize("lasts_seconds", [AWAY_SECONDS, 20 * AWAY_SECONDS])
def test_a_tier_that_is_back_is_used_within_seconds_however_long_it_was_away(
    lasts_seconds: float,
) -> None:
    """Given tasks that found it away, then none has an attempt to its name or waits."""

    async def main(loop: SimulatedLoop) -> None:
        house = House(loop)
        house.cold.away = True
        await house.append(*(f"g{n}" for n in range(600)))
        async with asyncio.TaskGroup() as group:
            group.create_task(house.archiver.run())
            await asyncio.sleep(lasts_seconds)
            assert await house.waiting() == 600
            age = house.value("trunkline_archive_oldest_waiting_seconds")
            assert lasts_seconds - 30 < age <= lasts_seconds
            house.cold.away = False
            await asyncio.sleep(BACK_SECONDS)
            assert await house.waiting() == 0
            house.archiver.close()
        assert set(house.tasks.attempts.values()) == {0}
        assert house.value("trunkline_archived_entries_total") == 600

    simulated(main)


def test_while_the_tier_is_away_the_hot_tier_is_left_alone() -> None:
    """It leases once, gives back once, and says once a pause how much waits."""

    async def main(loop: SimulatedLoop) -> None:
        house = House(loop)
        house.cold.away = True
        await house.append("g", "h")
        async with asyncio.TaskGroup() as group:
            group.create_task(house.archiver.run())
            await asyncio.sleep(AWAY_SECONDS)
            house.archiver.close()
        assert house.tasks.calls[:2] == ["lease", "give_back"]
        assert set(house.tasks.calls[2:]) == {"waiting"}
        assert len(house.tasks.calls) < AWAY_SECONDS / 10

    simulated(main)


def test_a_tier_that_is_gone_again_before_it_was_used_counts_against_no_task() -> None:
    """Given one that comes and goes, then no task waits longer for it."""

    async def main(loop: SimulatedLoop) -> None:
        house = House(loop)
        house.cold.away = True
        await house.append("g", "h")
        async with asyncio.TaskGroup() as group:
            group.create_task(house.archiver.run())
            for _ in range(5):
                await asyncio.sleep(AWAY_SECONDS)
                house.cold.lulls = 1
            house.archiver.close()
        assert house.tasks.calls.count("lease") == 5
        assert set(house.tasks.attempts.values()) == {0}

    simulated(main)


def test_archivers_that_lost_the_tier_together_do_not_ask_together() -> None:
    """Half of the pause is jitter, and more."""

    async def main(loop: SimulatedLoop) -> None:
        houses = [House(loop, seed) for seed in range(5)]
        async with asyncio.TaskGroup() as group:
            for house in houses:
                house.cold.away = True
                await house.append("g")
                group.create_task(house.archiver.run())
            await asyncio.sleep(AWAY_SECONDS)
            for house in houses:
                house.archiver.close()
        # The put that was not answered, and the question whether anything is.
        firsts = sorted(house.cold.asked_at[1] - 2 * SILENT_SECONDS for house in houses)
        assert firsts[0] >= 2.5
        assert firsts[-1] <= 8.0
        assert firsts[-1] - firsts[0] > 1.0

    simulated(main)


def test_what_alone_is_not_answered_waits_longer_each_time_and_holds_up_no_other() -> None:
    """Given a part of the tier that is away, the rest is archived, and what lies there fails by
    itself."""

    async def main(loop: SimulatedLoop) -> None:
        house = House(loop)
        (lost,) = await house.append("lost")
        house.cold.lost = {lost}
        async with asyncio.TaskGroup() as group:
            group.create_task(house.archiver.run())
            await asyncio.sleep(60.0)
            await house.append(*(f"g{n}" for n in range(50)))
            await asyncio.sleep(120.0)
            assert await house.waiting() == 1
            failed = house.value(FAILURES, code="tier_unavailable")
            assert failed >= 2
            await asyncio.sleep(600.0)
            assert await house.waiting() == 1
            assert house.value(FAILURES, code="tier_unavailable") - failed < 8
            house.cold.lost.clear()
            await asyncio.sleep(400.0)
            assert await house.waiting() == 0
            house.archiver.close()

    simulated(main)


def test_what_the_tier_refuses_keeps_no_neighbour_from_being_archived() -> None:
    """Given neighbours that go on talking, and are leased together with it again and again."""

    async def main(loop: SimulatedLoop) -> None:
        house = House(loop)
        (poison,) = await house.append("poison")
        house.cold.refused = {poison}
        async with asyncio.TaskGroup() as group:
            group.create_task(house.archiver.run())
            for number in range(20):
                await house.append(*(f"g{number} {neighbour}" for neighbour in range(5)))
                await asyncio.sleep(5.0)
                assert await house.waiting() == 1
            house.archiver.close()
        assert house.value("trunkline_archived_entries_total") == 100
        assert 2 <= house.value(FAILURES, code="tier_unavailable") <= 6
        assert house.tasks.attempts["poison"] >= 1
        assert all(house.tasks.attempts[f"g{number} 0"] == 0 for number in range(20))

    simulated(main)
