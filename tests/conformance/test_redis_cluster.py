"""The adapter on a Redis Cluster of three masters: the same promises, slots that move."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis
from redis_server import PATIENT, PrivateRedis, free_port, opened, private_redis, until

from trunkline.adapters.redis.cluster import SLOTS, slot_of
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import ConfigInvalid, TierUnavailable
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq, UserId, WorkerId
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
    TierMaker,
    TiersMaker,
    WatchingSuite,
)
from trunkline.testing.conformance.bus import take
from trunkline.testing.conformance.cached_eviction import write

MASTERS = 3


class PrivateCluster:
    """Three masters with a third of the slots each, none with a replica."""

    def __init__(self, masters: Sequence[PrivateRedis]) -> None:
        self.masters = masters
        share = -(-SLOTS // MASTERS)
        for number, master in enumerate(masters):
            with master.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                first, last = number * share, min((number + 1) * share, SLOTS) - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                if number:
                    client.execute_command(
                        "CLUSTER", "MEET", "127.0.0.1", masters[0].port, masters[0].cluster_port
                    )
        self.wait()

    def wait(self) -> None:
        """Until every master knows of all."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if all(self._knows_all(master) for master in self.masters):
                return
            time.sleep(0.05)
        raise AssertionError("the cluster does not come together")

    def _knows_all(self, master: PrivateRedis) -> bool:
        with master.client() as client:
            facts = client.execute_command("CLUSTER", "INFO").split()
            return {b"cluster_state:ok", b"cluster_size:%d" % MASTERS} <= set(facts)

    def move(self, slot: int) -> None:
        """Moves an empty slot to the next master."""
        owner, other = (self.masters[(slot * MASTERS // SLOTS + n) % MASTERS] for n in (0, 1))
        with owner.client() as one, other.client() as two:
            node = two.execute_command("CLUSTER", "MYID")
            two.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)
            one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)

    def give(self, slot: int, to: PrivateRedis) -> None:
        """Empties a slot and moves it, and tells all masters so."""
        owner = self.masters[slot * MASTERS // SLOTS]
        with owner.client() as client, to.client() as other:
            node = other.execute_command("CLUSTER", "MYID")
            if keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                client.delete(*keys)
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)
        for master in self.masters:
            with master.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateCluster]:
    with ExitStack() as stack:
        yield PrivateCluster([started(stack, tmp_path_factory.mktemp("node")) for _ in range(3)])


def started(stack: ExitStack, folder: Path) -> PrivateRedis:
    port = free_port()
    options = (
        "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no",
        "--cluster-port", str(port), "--cluster-node-timeout", "2000",
    )  # fmt: skip
    server = stack.enter_context(private_redis(folder, *options))
    server.cluster_port = port
    return server


def settings_of(cluster: PrivateCluster, **more: object) -> Settings:
    nodes = tuple(master.address for master in cluster.masters)
    return Settings(nodes=nodes, prefix=uuid.uuid4().hex, **{**PATIENT, **more})


@pytest.fixture
def make_tier(cluster: PrivateCluster) -> TierMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[CachedTier]:
        async with opened(settings_of(cluster)) as stores:
            yield stores.cached

    return make


@pytest.fixture
def make_bounded_tier(cluster: PrivateCluster) -> BoundedTierMaker:
    @asynccontextmanager
    async def make(conversation_entries: int) -> AsyncIterator[CachedTier]:
        settings = settings_of(cluster, conversation_entries=conversation_entries)
        async with opened(settings) as stores:
            yield stores.cached

    return make


@pytest.fixture
def make_tiers(cluster: PrivateCluster) -> TiersMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[CachedTier]]:
        settings = settings_of(cluster)
        async with AsyncExitStack() as stack:
            found = [await stack.enter_async_context(opened(settings, name)) for name in workers]
            yield [stores.cached for stores in found]

    return make


@pytest.fixture
def make_heads(cluster: PrivateCluster) -> HeadsMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[CachedTier, CachedHeads]]:
        async with opened(settings_of(cluster)) as stores:
            yield stores.cached, stores.heads

    return make


@pytest.fixture
def make_buses(cluster: PrivateCluster) -> BusMaker:
    @asynccontextmanager
    async def make(*workers: WorkerId) -> AsyncIterator[Sequence[Bus]]:
        settings = settings_of(cluster)
        async with AsyncExitStack() as stack:
            found = [await stack.enter_async_context(opened(settings, name)) for name in workers]
            yield [stores.bus for stores in found]

    return make


@pytest.fixture
def resubscribe(cluster: PrivateCluster) -> object:
    async def kill(worker: WorkerId) -> None:
        for master in cluster.masters:
            with master.client() as client:
                for found in client.client_list(_type="pubsub"):
                    if found["name"].endswith(worker):
                        client.client_kill_filter(_id=found["id"])

    return kill


class TestCachedTier(CachedTierSuite): ...


class TestCachedEviction(CachedEvictionSuite): ...


class TestCachedHeads(CachedHeadsSuite): ...


class TestWatching(WatchingSuite): ...


class TestBus(BusSuite): ...


def key_in(slot: int) -> ConversationKey:
    """A conversation whose keys are in a slot."""
    return next(ConversationKey(n) for n in range(10**7) if slot_of(b"%016x" % n) == slot)


async def test_one_batch_goes_to_all_masters(cluster: PrivateCluster) -> None:
    """Each has its share, and each conversation is whole."""
    async with opened(settings_of(cluster)) as stores:
        keys = [ConversationKey(number) for number in range(300)]
        await stores.cached.append([write(key, 1, 2, []) for key in keys])
        moves = [OffsetMove(key, UserId("ann"), EndpointId("phone"), Seq(1)) for key in keys]
        await stores.cached.confirm(moves, dict.fromkeys(keys, 1))
        for key in keys:
            assert [e.seq for e in await stores.cached.read(key, Seq(0), Seq(2))] == [2]
        for master in cluster.masters:
            with master.client() as client:
                assert client.dbsize() > 100


async def test_a_slot_that_moved_is_followed(cluster: PrivateCluster) -> None:
    """At once, and by whoever listens there, too."""
    async with opened(settings_of(cluster), "worker-moved") as stores:
        conversation_slot, inbox_slot = 77, slot_of(b"=worker-moved")
        key = key_in(conversation_slot)
        cluster.move(conversation_slot)
        # The first may go by way of who had the slot, under whose run id it counts no more.
        last = 0
        async with asyncio.timeout(15):
            while not await stores.cached.read(key, Seq(0), Seq(last)):
                await stores.cached.append([write(key, last + 1, last + 2, [])])
                last += 2
        assert last <= 8
        cluster.move(inbox_slot)
        assert await take(stores.bus, 1) == [None]
        async with asyncio.timeout(15):
            while await stores.bus.publish({WorkerId("worker-moved"): b"hello"}):
                await asyncio.sleep(0.05)
        assert await take(stores.bus, 1) == [b"hello"]


async def test_an_emptied_master_makes_the_cluster_another_one(cluster: PrivateCluster) -> None:
    """Its slots' heads are gone, those of the others may be older than what they would hold."""
    async with opened(settings_of(cluster)) as stores:
        before = stores.heads.server
        with cluster.masters[1].client() as client:
            client.flushall()
        await until(lambda: stores.heads.server not in (b"", before), "a beat sees it")
        key = key_in(SLOTS // 2)
        await stores.cached.append([write(key, 1, 1, [])])
        assert await stores.cached.read(key, Seq(0), Seq(1))


async def test_a_mark_whose_slot_moves_is_put_elsewhere(cluster: PrivateCluster) -> None:
    """Else its master would be taken for an emptied one for ever."""
    settings = settings_of(cluster, reconnect_seconds=0.1)
    async with opened(settings) as stores, opened(settings) as others:
        before = stores.heads.server
        slot = slot_of(b"life 0")

        def moved() -> bool:
            try:
                cluster.give(slot, cluster.masters[0])
            except redis.ResponseError:
                return False  # it was put there again in between
            return True

        await until(moved, "the slot is empty for a moment")
        await until(
            lambda: stores.heads.answers and stores.heads.server == others.heads.server != before,
            "all are served, and agree on who serves them",
        )
        await stores.cached.append([write(key_in(slot + 1), 1, 1, [])])


async def test_a_cluster_has_one_logical_database(cluster: PrivateCluster) -> None:
    with pytest.raises(ConfigInvalid):
        opened(settings_of(cluster, database=1))


async def test_a_server_that_is_no_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        settings = Settings(nodes=(server.address, server.address))
        with pytest.raises(TierUnavailable, match="no node of a cluster"):
            async with opened(settings):
                pass


async def test_a_master_that_is_gone_takes_only_its_slots_along(
    cluster: PrivateCluster,
) -> None:
    """Last of all, for it comes back with nothing."""
    gone = cluster.masters[2]
    settings = settings_of(cluster, answer_seconds=0.5, reconnect_seconds=0.1)
    async with opened(settings) as stores:
        tier = stores.cached
        there, away = key_in(3), key_in(SLOTS - 3)
        await tier.append([write(there, 1, 1, []), write(away, 1, 1, [])])
        gone.kill()
        with pytest.raises(TierUnavailable):
            await tier.append([write(there, 2, 2, []), write(away, 2, 2, [])])
        assert not await tier.read(away, Seq(0), Seq(1))
        async with asyncio.timeout(15):
            while len(await tier.read(there, Seq(0), Seq(3))) != 3:
                await tier.append([write(there, 2, 3, [])])
        await asyncio.to_thread(gone.start)
        async with asyncio.timeout(15):
            while not await tier.read(away, Seq(0), Seq(3)):
                try:
                    await tier.append([write(away, 3, 3, [])])
                except TierUnavailable:
                    await asyncio.sleep(0.05)
