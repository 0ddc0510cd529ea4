"""The cached tier in memory evicts exactly what all present members hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
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


async def test_large_bodies_and_many_heads_are_bounded_in_bytes() -> None:
    """Not only in number: the conversations that are idle longest go, as with too many entries;
    once all is gone nothing counts any more."""
    clock, most = SteppedClock(), 1_000_000
    settings = CachedSettings(memory_bytes=most, idle_seconds=60.0)
    tier = MemoryCachedTier(clock, settings)
    for number in range(100):
        large = write(ConversationKey(number), 1, 2, [])
        entries = [msgspec.structs.replace(entry, sealed=bytes(30_000)) for entry in large.entries]
        await tier.append([msgspec.structs.replace(large, entries=entries)])
        assert tier.held_bytes <= most
    assert 25 < tier.entry_count <= 33
    assert await tier.read(ConversationKey(99), Seq(0), Seq(2))
    assert tier.evicted[EvictionCause.SPACE] == 200 - tier.entry_count
    for number in range(1000, 4000):
        await tier.append([write(ConversationKey(number), 1, 0, [])])
        assert tier.held_bytes <= most
    assert tier.conversation_count < 2000
    clock.advance(120.0)
    await tier.evict_idle()
    assert (tier.held_bytes, tier.conversation_count) == (0, 0)
