"""A Redis that answers and is not the tier: left, named, and everything is whole soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from redis_server import (
    FAR_MORE_SECONDS,
    HEAL,
    PATIENT,
    PrivateRedis,
    opened,
    patient,
    private_redis,
    until,
)

from trunkline.adapters.redis.refusals import Refusal
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, Seq, UserId, WorkerId
from trunkline.ports.bus import Forgotten
from trunkline.testing.conformance.bus import take
from trunkline.testing.conformance.cached_eviction import write
from trunkline.testing.proxy import Proxy

ANN = UserId("ann")
KEY = ConversationKey(1)
ONE, TWO = WorkerId("worker-1"), WorkerId("worker-2")
REPAIRED_SECONDS = 10.0
CALLS = 50

Change = Callable[[redis.Redis, Path], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    with private_redis(tmp_path) as found:
        yield found


def reading(stores: RedisStores, metric: str, label: str = "") -> float:
    return next(r.read() for r in stores.readings() if (r.metric, r.label) == (metric, label))


def refusals(stores: RedisStores, refusal: Refusal) -> float:
    return reading(stores, "trunkline_cached_refusals", refusal)


def away(stores: RedisStores) -> float:
    return reading(stores, "trunkline_cached_away")


class Numbers:
    """Entries of one conversation, each once."""

    def __init__(self) -> None:
        self.head = 0

    async def append(self, stores: RedisStores) -> list[WorkerId]:
        """Appends the next; returns who else watches."""
        self.head += 1
        watchers = await stores.cached.append([write(KEY, self.head, self.head, [])])
        return list(watchers.get(KEY, ()))


@asynccontextmanager
async def workers(settings: Settings) -> AsyncIterator[tuple[RedisStores, RedisStores, Numbers]]:
    """One that writes, and one that watches and serves."""
    async with opened(settings, ONE) as one, opened(settings, TWO) as two:
        numbers = Numbers()
        await two.cached.watch([KEY])
        await two.bus.present([ANN])
        assert await numbers.append(one) == [TWO]
        yield one, two, numbers


async def whole_again(one: RedisStores, two: RedisStores, numbers: Numbers) -> None:
    """Waits until the writer is told who watches and serves, and reaches the watcher."""

    async def whole() -> bool:
        try:
            return (
                await numbers.append(one) == [TWO]
                and await one.bus.workers_of([ANN]) == {ANN: [TWO]}
                and not await one.bus.publish({TWO: b"heard"})
            )
        except TierUnavailable:
            return False

    async with asyncio.timeout(REPAIRED_SECONDS):
        while not await whole():
            await asyncio.sleep(0.02)
        while b"heard" not in await take(two.bus, 1):
            pass


def demote(client: redis.Redis, folder: Path) -> None:
    client.replicaof("127.0.0.1", 1)


def promote(client: redis.Redis, folder: Path) -> None:
    client.replicaof("NO", "ONE")


def lose_the_disk(client: redis.Redis, folder: Path) -> None:
    client.config_set("save", "3600 1")
    (folder / "dump.rdb").mkdir()
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)


def find_the_disk(client: redis.Redis, folder: Path) -> None:
    (folder / "dump.rdb").rmdir()
    client.bgsave()


def want_replicas(client: redis.Redis, folder: Path) -> None:
    client.config_set("min-replicas-to-write", 1)


def want_none(client: redis.Redis, folder: Path) -> None:
    client.config_set("min-replicas-to-write", 0)


def forbid(client: redis.Redis, folder: Path) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")


def allow(client: redis.Redis, folder: Path) -> None:
    client.execute_command("ACL", "SETUSER", "default", "+eval", "+evalsha")


@pytest.mark.parametrize(
    ("fails", "heals", "refusal"),
    [
        (demote, promote, Refusal.READONLY),
        (lose_the_disk, find_the_disk, Refusal.MISCONF),
        (want_replicas, want_none, Refusal.NOREPLICAS),
        (forbid, allow, Refusal.NOPERM),
    ],
)
async def test_a_server_that_refuses_is_left_named_and_taken_again_once_it_serves(
    server: PrivateRedis,
    caplog: pytest.LogCaptureFixture,
    fails: Change,
    heals: Change,
    refusal: Refusal,
) -> None:
    async with workers(patient(server)) as (one, two, numbers):
        with server.client() as client:
            fails(client, server.folder)
            with pytest.raises(TierUnavailable, match=refusal.upper()):
                await numbers.append(one)
            assert away(one)
            assert not one.heads.answers
            assert refusals(one, refusal)
            assert refusal.upper() in caplog.text
            started = time.monotonic()
            for _ in range(CALLS):
                with pytest.raises(TierUnavailable):
                    await numbers.append(one)
            assert time.monotonic() - started < FAR_MORE_SECONDS
            await until(lambda: bool(away(two)), "who only watches notices by its beat")
            heals(client, server.folder)
            await whole_again(one, two, numbers)
        assert not away(one)


async def test_a_server_that_loads_its_data_is_named_and_taken_once_it_has(
    tmp_path: Path,
) -> None:
    slowly = ("--enable-debug-command", "local", "--loading-process-events-interval-bytes", "1024")
    with private_redis(tmp_path, *slowly) as server:
        async with workers(patient(server)) as (one, two, numbers):
            with server.client() as client:
                client.mset({f"key {number}": "x" * 100 for number in range(300)})
                client.save()
            server.kill()
            server.options = (*slowly, "--key-load-delay", "3000")
            started = asyncio.create_task(asyncio.to_thread(server.start))
            await until(lambda: bool(refusals(one, Refusal.LOADING)), "it is named")
            await started
            await whole_again(one, two, numbers)


async def test_an_address_that_moves_takes_calls_and_inbox_along(tmp_path: Path) -> None:
    """The old primary follows the new one and keeps every socket open, as in a failover."""
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
    at_once = ("--repl-diskless-sync-delay", "0")
    with private_redis(folders[0], *at_once) as old, private_redis(folders[1]) as new:
        async with Proxy("127.0.0.1", old.port) as proxy:
            settings = Settings(nodes=(f"127.0.0.1:{proxy.port}",), **{**PATIENT, **HEAL})
            async with workers(settings) as (one, two, numbers):
                before = one.heads.server
                with new.client() as client:
                    client.replicaof("127.0.0.1", old.port)
                    await until(
                        lambda: client.info("replication")["master_link_status"] == "up",
                        "it holds what the old one does",
                    )
                    client.replicaof("NO", "ONE")
                with old.client() as client:
                    client.replicaof("127.0.0.1", new.port)
                proxy.server_address = ("127.0.0.1", new.port)
                await whole_again(one, two, numbers)
                assert one.heads.server == two.heads.server != before


async def test_a_server_that_was_demoted_and_promoted_again_is_another(
    server: PrivateRedis,
) -> None:
    """It may lack what it was sent before, and nobody asked it meanwhile."""
    async with workers(patient(server)) as (one, two, numbers):
        before = one.heads.server
        with server.client() as client, client.pipeline() as both:
            both.replicaof("127.0.0.1", 1)
            both.replicaof("NO", "ONE")
            both.execute()
        await until(
            lambda: one.heads.server == two.heads.server != before, "both see it by their beats"
        )
        await whole_again(one, two, numbers)


async def test_an_emptied_server_is_another_one_for_everybody(server: PrivateRedis) -> None:
    """For the worker that writes with its next call, for the one that only watches by its
    beat; then both know it by the same new name, and every registration is there."""
    async with workers(patient(server)) as (one, two, numbers):
        before = one.heads.server
        assert two.heads.server == before
        await one.cached.append([write(KEY, 2, 2, [])], b"stamp")
        with server.client() as client:
            client.flushall()
        assert await one.heads.heads([KEY], b"stamp") == [None]
        assert away(one)
        assert refusals(one, Refusal.EMPTIED)
        assert await take(two.bus, 1) == [None]
        await whole_again(one, two, numbers)
        assert one.heads.server == two.heads.server != before


async def test_what_was_asked_while_the_server_was_emptied_is_not_answered(
    server: PrivateRedis,
) -> None:
    """The answer would be of a data set that is gone: who watches, what was taken over."""
    async with workers(patient(server)) as (one, _, numbers):
        with server.client() as client:
            client.flushall()
        with pytest.raises(TierUnavailable, match="emptied"):
            await numbers.append(one)


async def test_a_single_registration_that_is_lost_is_found_and_told(
    server: PrivateRedis,
) -> None:
    """Evicted or deleted: the server is the same, and nothing else would say so."""
    other = ConversationKey(2)
    async with workers(patient(server, lookout_seconds=0.2)) as (one, two, numbers):
        await two.cached.watch([other])
        with server.client() as client:
            client.delete(*client.keys("*0001}:watchers"))
            assert await numbers.append(one) == []
            assert await take(two.bus, 1) == [Forgotten([KEY], ())]
            assert await numbers.append(one) == [TWO]
            client.delete(*client.keys("*:workers"))
            assert await take(two.bus, 1) == [Forgotten((), [ANN])]
        assert await one.bus.workers_of([ANN]) == {ANN: [TWO]}
        assert reading(two, "trunkline_cached_registrations_lost") == 2


async def test_who_connects_while_the_server_is_full_is_pushed(server: PrivateRedis) -> None:
    async with workers(patient(server)) as (one, two, _):
        with server.client() as client:
            client.config_set("maxmemory", 1)
        later, bob = ConversationKey(2), UserId("bob")
        await two.cached.watch([later])
        await two.bus.present([bob])
        assert await one.cached.append([write(later, 1, 1, [])]) == {later: [TWO]}
        assert await one.bus.workers_of([bob]) == {bob: [TWO]}
        assert await one.cached.read(later, Seq(0), Seq(1)) == ()
