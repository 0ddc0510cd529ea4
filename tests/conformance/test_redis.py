"""The Redis adapter keeps the promises of its ports, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis_server import opened, shared_settings

from trunkline.adapters.redis import Settings
from trunkline.ports.cached import CachedTier
from trunkline.testing.conformance import CachedTierSuite, TierMaker


@pytest.fixture
def settings() -> Iterator[Settings]:
    with shared_settings() as found:
        yield found


@pytest.fixture
def make_tier(settings: Settings) -> TierMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[CachedTier]:
        async with opened(settings) as stores:
            yield stores.cached

    return make


class TestCachedTier(CachedTierSuite): ...
