"""The Redis adapter keeps the promises of its ports, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

import pytest
from redis_server import client_of, keys_of, opened, shared_settings, until

from trunkline.adapters.redis.cached import EvictionCause, RedisCachedTier
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq, WorkerId
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.testing.conformance import (
    BoundedTierMaker,
    BusMaker,
    BusSuite,
    CachedEvictionSuite,
    CachedHeadsSuite,
    CachedTierSuite,
    HeadsMaker,
    Resubscribe,
    TierMaker,
    TiersMaker,
    WatchingSuite,
    Writer,
)
from trunkline.testing.conformance.cached import Source
from trunkline.testing.conformance.cached_eviction import USERS, write


@pytest.fixture
def redis_settings() -> Iterator[Settings]:
    with shared_settings() as found:
        yield found


@pytest.fixture
def make_tier(redis_settings: Settings) -> TierMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[CachedTier]:
        async with opened(redis_settings) as stores:
            yield stores.cached

    return make


@pytest.fixture
def make_bounded_tier() -> Iterator[BoundedTierMaker]:
    with shared_settings() as found:
        names = Settings.__struct_fields__

        @asynccontextmanager
        async def make(conversation_entries: int) -> AsyncIterator[CachedTier]:
            fields = {name: getattr(found, name) for name in names}
            fields["conversation_entries"] = conversation_entries
            async with opened(Settings(**fields)) as stores:
                yield stores.cached

        yield make


@asynccontextmanager
async def several(settings: Settings, workers: Sequence[str]) -> AsyncIterator[list[RedisStores]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(settings, worker)) for worker in workers]


@pytest.fixture
def make_tiers(redis_settings: Settings) -> TiersMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[CachedTier]]:
        async with several(redis_settings, workers) as all_stores:
            yield [stores.cached for stores in all_stores]

    return make


@pytest.fixture
def make_buses(redis_settings: Settings) -> BusMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[Bus]]:
        async with several(redis_settings, workers) as all_stores:
            yield [stores.bus for stores in all_stores]

    return make


@pytest.fixture
def resubscribe(redis_settings: Settings) -> Resubscribe:
    async def kill(worker: WorkerId) -> None:
        name = quote(f"{redis_settings.prefix}-{worker}", safe="")
        with client_of(redis_settings) as client:
            (found,) = [c for c in client.client_list(_type="pubsub") if c["name"] == name]
            client.client_kill_filter(_id=found["id"])

    return kill


@pytest.fixture
def make_heads(redis_settings: Settings) -> HeadsMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[CachedTier, CachedHeads]]:
        async with opened(redis_settings) as stores:
            yield stores.cached, stores.heads

    return make


class TestCachedTier(CachedTierSuite): ...


class TestCachedHeads(CachedHeadsSuite): ...


class TestCachedEviction(CachedEvictionSuite): ...


class TestWatching(WatchingSuite): ...


class TestBus(BusSuite): ...


# --- what this adapter does beyond the suites --------------------------------------------


async def test_what_was_evicted_is_counted_by_its_cause(
    make_bounded_tier: BoundedTierMaker,
) -> None:
    key, phone = ConversationKey(1), EndpointId("phone")
    async with make_bounded_tier(16) as tier:
        assert isinstance(tier, RedisCachedTier)
        await tier.append([write(key, 1, 20, [])])
        await tier.confirm([OffsetMove(key, USERS[0], phone, Seq(15))], {key: 1})
        await tier.append([write(key, 22, 22, [])])
        await tier.append([write(key, 23, 23, [])])
        await tier.confirm([OffsetMove(key, USERS[0], phone, Seq(40))], {key: 1})
        causes = (EvictionCause.LENGTH, EvictionCause.READ, EvictionCause.GAP)
        assert [tier.evicted[cause] for cause in causes] == [4, 12, 5]


async def test_an_idle_conversation_and_an_idle_endpoint_vanish(writer: Writer) -> None:
    """Redis drops them by itself; a write or a word begins their time anew."""
    with shared_settings(idle_seconds=0.4) as settings:
        source = Source(writer)
        async with opened(settings) as stores:
            tier, lasting = stores.cached, keys_of(settings)
            await tier.append(await source.create())
            await source.confirm(tier, [(USERS[0], EndpointId("phone"), 1)])
            await tier.load_offsets(USERS[0], EndpointId("phone"), {source.key: Seq(1)})
            assert keys_of(settings) != lasting
            await until(lambda: keys_of(settings) == lasting, "everything is gone")
            assert await source.seqs(tier, 0, 1) == []
            assert await tier.offsets(USERS[0], EndpointId("phone")) is None


async def test_no_body_stands_in_redis_in_plaintext(
    redis_settings: Settings, writer: Writer
) -> None:
    """I12."""
    source = Source(writer)
    async with opened(redis_settings) as stores:
        await stores.cached.append(await source.create())
        secret = writer.message("g", "ann", "m", "streng geheim")
        await stores.cached.append(await source.write(secret))
        with client_of(redis_settings) as client:
            held = [client.dump(key) or b"" for key in keys_of(redis_settings)]
    assert held
    assert not [dump for dump in held if b"geheim" in dump]
