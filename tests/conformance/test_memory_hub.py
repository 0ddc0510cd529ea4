"""The hub in memory keeps the promises of the bus and of a shared cached tier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from trunkline.adapters.memory.bus import MemoryHub
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.generations import MemoryGenerations
from trunkline.model import WorkerId
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.ports.generations import Generations
from trunkline.testing.conformance import (
    BusMaker,
    BusSuite,
    CachedHeadsSuite,
    GenerationsMaker,
    GenerationsSuite,
    HeadsMaker,
    Resubscribe,
    SteppedClock,
    TiersMaker,
    WatchingSuite,
)


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


@pytest.fixture
def make_buses(hub: MemoryHub) -> BusMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[Bus]]:
        yield [hub.open(worker) for worker in workers]

    return make


@pytest.fixture
def make_tiers(hub: MemoryHub) -> TiersMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[CachedTier]]:
        inner = MemoryCachedTier(SteppedClock())
        for worker in workers:
            hub.open(worker)
        yield [hub.tier(worker, inner) for worker in workers]

    return make


@pytest.fixture
def resubscribe(hub: MemoryHub) -> Resubscribe:
    async def cut(worker: WorkerId) -> None:
        hub.cut(worker)
        hub.mend(worker)

    return cut


@pytest.fixture
def make_heads(hub: MemoryHub) -> HeadsMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[CachedTier, CachedHeads]]:
        worker = WorkerId("worker")
        hub.open(worker)
        yield hub.tier(worker, MemoryCachedTier(SteppedClock())), hub.heads(worker)

    return make


@pytest.fixture
def make_generations() -> GenerationsMaker:
    generations = MemoryGenerations()

    @asynccontextmanager
    async def make() -> AsyncIterator[Sequence[Generations]]:
        yield generations, generations

    return make


class TestCachedHeads(CachedHeadsSuite): ...


class TestGenerations(GenerationsSuite): ...


class TestBus(BusSuite): ...


class TestWatching(WatchingSuite): ...
