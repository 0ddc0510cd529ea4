"""The cached tier in memory evicts exactly what all present members hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from trunkline.adapters.memory.cached import CachedSettings, EvictionCause, MemoryCachedTier
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq
from trunkline.testing.conformance import BoundedTierMaker, CachedEvictionSuite, SteppedClock
from trunkline.testing.conformance.cached_eviction import USERS, write


@pytest.fixture
def make_bounded_tier() -> BoundedTierMaker:
    @asynccontextmanager
    async def make(conversation_entries: int) -> AsyncIterator[MemoryCachedTier]:
        settings = CachedSettings(conversation_entries=conversation_entries)
        yield MemoryCachedTier(SteppedClock(), settings)

    return make


class TestCachedEviction(CachedEvictionSuite): ...


async def test_what_was_evicted_is_counted_by_its_cause(
    make_bounded_tier: BoundedTierMaker,
) -> None:
    key, phone = ConversationKey(1), EndpointId("phone")
    async with make_bounded_tier(16) as tier:
        assert isinstance(tier, MemoryCachedTier)
        await tier.append([write(key, 1, 20, [])])
        await tier.confirm([OffsetMove(key, USERS[0], phone, Seq(15))], {key: 1})
        await tier.append([write(key, 22, 22, [])])
        causes = (EvictionCause.LENGTH, EvictionCause.READ, EvictionCause.GAP)
        assert [tier.evicted[cause] for cause in causes] == [4, 11, 5]
        assert tier.entry_count == 0
