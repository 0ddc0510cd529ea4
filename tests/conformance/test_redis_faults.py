"""Redis killed, stopped, wiped, restored old, short of memory: nothing wrong is read, all heals."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
import uvloop
from redis_server import (
    FAR_MORE_SECONDS,
    SHORT_SECONDS,
    PrivateRedis,
    hasty,
    opened,
    patient,
    private_redis,
    until,
)

from trunkline.adapters.redis.cached import EvictionCause
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, EndpointId, Seq, UserId, WorkerId
from trunkline.ports.cached import CachedTier
from trunkline.testing.conformance import Writer
from trunkline.testing.conformance.bus import take
from trunkline.testing.conformance.cached import Source
from trunkline.testing.conformance.cached_eviction import write
from trunkline.testing.conformance.writer import view
from trunkline.testing.proxy import Proxy

ANN, PHONE = UserId("ann"), EndpointId("phone")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    with private_redis(tmp_path) as found:
        yield found


async def appended(tier: CachedTier, source: Source) -> bool:
    """Whether the tier took the next entry over."""
    try:
        await tier.append(await source.send(1))
    except TierUnavailable:
        return False
    return True


async def served_again(tier: CachedTier, source: Source) -> None:
    """Waits until appends go through; each is a new entry."""
    async with asyncio.timeout(15):
        while not await appended(tier, source):
            await asyncio.sleep(0.02)


async def check_everything_read(tier: CachedTier, source: Source) -> list[int]:
    """I2, I8: every answer ends where it was asked to, and is what the hot tier holds.

    Returns what is read of the whole conversation.
    """
    head = (await view(source.hot, "ann", "g"))[0].head
    for after in range(head):
        for up_to in (after + 1, head):
            seqs = await source.seqs(tier, after, up_to)
            assert seqs == list(range(up_to + 1 - len(seqs), up_to + 1))
            assert not seqs or seqs[0] > after
    return await source.seqs(tier, 0, head)


async def packet_of(stores: RedisStores) -> bytes:
    """The next packet, however often a loss is told of before it."""
    while True:
        (packet,) = await take(stores.bus, 1)
        if packet is not None:
            return packet


def worker(number: int) -> WorkerId:
    return WorkerId(f"worker-{number}")


async def test_a_killed_server_that_comes_back_empty_is_filled_again(
    server: PrivateRedis, writer: Writer
) -> None:
    """DESIGN section 10: heads, offsets, watchers and presence come back by themselves."""
    source = Source(writer)
    settings = patient(server)
    async with opened(settings, "worker-1") as one, opened(settings, "worker-2") as two:
        await one.cached.append(await source.create())
        await one.cached.load_offsets(ANN, PHONE, {source.key: Seq(1)})
        await two.cached.watch([source.key])
        await two.bus.present([ANN])
        server.kill()
        assert not await appended(one.cached, source)
        server.start()
        assert await take(two.bus, 1) == [None]
        await served_again(one.cached, source)
        seqs = await check_everything_read(one.cached, source)
        assert seqs
        assert seqs[0] > 2
        assert await one.cached.offsets(ANN, PHONE) is None
        async with asyncio.timeout(15):
            while await one.cached.append(await source.send(1)) != {source.key: [worker(2)]}:
                await asyncio.sleep(0.02)
            while await one.bus.workers_of([ANN]) != {ANN: [worker(2)]}:
                await asyncio.sleep(0.02)
        assert not await one.bus.publish({worker(2): b"again"})
        assert await packet_of(two) == b"again"


async def test_while_it_is_gone_everything_is_answered_at_once(
    server: PrivateRedis, writer: Writer
) -> None:
    """Reads by nothing, offsets by not knowing; only append, publish and workers_of tell."""
    source = Source(writer)
    async with opened(hasty(server)) as stores:
        tier, bus = stores.cached, stores.bus
        await tier.append(await source.create())
        server.kill()
        started = time.monotonic()
        for _ in range(20):
            assert not await appended(tier, source)
            assert await tier.read(source.key, Seq(0), Seq(1)) == ()
            assert await tier.offsets(ANN, PHONE) is None
            await source.confirm(tier, [(ANN, PHONE, 1)])
            await tier.load_offsets(ANN, PHONE, {})
            await tier.watch([source.key])
            await tier.unwatch([source.key])
            assert await tier.evict_idle() == 0
            await bus.present([ANN])
            await bus.absent([ANN])
            with pytest.raises(TierUnavailable):
                await bus.publish({worker(9): b"x"})
            with pytest.raises(TierUnavailable):
                await bus.workers_of([ANN])
        assert time.monotonic() - started < FAR_MORE_SECONDS


@pytest.mark.parametrize("how", ["stopped", "client pause"])
async def test_a_server_that_stands_still_costs_one_bound_and_then_nothing(
    server: PrivateRedis, writer: Writer, how: str
) -> None:
    """DESIGN section 3, step 7: after the first missing answer calls fail at once."""
    source = Source(writer)
    async with opened(hasty(server, stall_seconds=30.0)) as stores:
        tier = stores.cached
        await tier.append(await source.create())
        if how == "stopped":
            server.signal(signal.SIGSTOP)
        else:
            with server.client() as client:
                client.client_pause(1000)
        started = time.monotonic()
        assert not await appended(tier, source)
        assert SHORT_SECONDS <= time.monotonic() - started < FAR_MORE_SECONDS
        started = time.monotonic()
        for _ in range(100):
            assert not await appended(tier, source)
            assert await tier.read(source.key, Seq(0), Seq(1)) == ()
        assert time.monotonic() - started < 200 * SHORT_SECONDS / 4
        if how == "stopped":
            server.signal(signal.SIGCONT)
        await served_again(tier, source)
        await tier.append(await source.send(2))
        assert await check_everything_read(tier, source)


class Standstill:
    """Keeps the loop from doing anything, out of the callback of a socket."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._near, self._far = socket.socketpair()
        asyncio.get_running_loop().add_reader(self._near, self._stand)

    def begin(self) -> None:
        self._far.send(b"x")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._near)
        self._near.close()
        self._far.close()

    def _stand(self) -> None:
        self._near.recv(1)
        time.sleep(self._seconds)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_that_this_process_stood_still_is_not_held_against_the_server(
    server: PrivateRedis, writer: Writer, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    """The answer was there in time, only nobody came to read it; loops differ in the order."""

    async def stalls() -> None:
        source = Source(writer)
        async with opened(hasty(server)) as stores:
            await stores.cached.append(await source.create())
            standstill = Standstill(3 * SHORT_SECONDS)
            for _ in range(5):
                writes = await source.send(1)
                async with asyncio.TaskGroup() as group:
                    group.create_task(stores.cached.append(writes))
                    for _ in range(2):  # one turn to ask, one to write
                        await asyncio.sleep(0)
                    standstill.begin()
            standstill.close()
            assert await check_everything_read(stores.cached, source)

    run(stalls())


async def test_a_connection_into_a_black_hole_is_given_up_and_made_anew(
    server: PrivateRedis, writer: Writer
) -> None:
    """So is that of the inbox; what the old one still brings late does no harm."""
    source = Source(writer)
    async with Proxy("127.0.0.1", server.port) as proxy:
        settings = Settings(
            nodes=(f"127.0.0.1:{proxy.port}",),
            answer_seconds=SHORT_SECONDS, read_seconds=SHORT_SECONDS,
            connect_seconds=0.3, stall_seconds=0.2, reconnect_seconds=0.1,
        )  # fmt: skip
        async with opened(settings, "worker-1") as stores:
            await stores.cached.append(await source.create())
            proxy.pause()
            assert not await appended(stores.cached, source)
            connection = stores._servers.of(b"")
            await until(lambda: connection._link is None, "the connection is given up")
            assert not await appended(stores.cached, source)
            proxy.resume()
            assert await take(stores.bus, 1) == [None]
            await served_again(stores.cached, source)
            await stores.cached.append(await source.send(2))
            assert await check_everything_read(stores.cached, source)


async def test_scripts_that_the_server_forgot_are_loaded_again(
    server: PrivateRedis, writer: Writer
) -> None:
    """Nobody notices."""
    source = Source(writer)
    async with opened(patient(server)) as stores:
        await stores.cached.append(await source.create())
        with server.client() as client:
            client.script_flush()
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                key = ConversationKey(number)
                group.create_task(stores.cached.append([write(key, 1, 3, [])]))
        for number in range(50):
            found = await stores.cached.read(ConversationKey(number), Seq(0), Seq(3))
            assert [entry.seq for entry in found] == [1, 2, 3]


async def test_an_old_snapshot_is_not_believed(server: PrivateRedis, writer: Writer) -> None:
    """It may hold what was erased since, and offsets of long ago."""
    source = Source(writer)
    async with opened(patient(server)) as stores:
        tier = stores.cached
        await tier.append(await source.create())
        await tier.append(await source.send(4))
        await tier.load_offsets(ANN, PHONE, {source.key: Seq(2)})
        with server.client() as client:
            client.save()
        await tier.append(await source.send(3))
        server.kill()
        server.start()
        with server.client() as client:
            assert client.dbsize() >= 3
        async with opened(patient(server)) as newcomer:
            assert await newcomer.cached.read(source.key, Seq(0), Seq(5)) == ()
            assert await newcomer.cached.offsets(ANN, PHONE) is None
        await served_again(tier, source)
        seqs = await check_everything_read(tier, source)
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        assert seqs[0] > 8
        assert await tier.read(source.key, Seq(0), Seq(5)) == ()
        assert await tier.offsets(ANN, PHONE) is None
        await source.confirm(tier, [(ANN, PHONE, 1)])
        await tier.load_offsets(ANN, PHONE, {source.key: Seq(4)})
        assert await tier.offsets(ANN, PHONE) == {source.key: 4}


async def test_a_caller_that_gave_up_leaves_everyone_their_own_answer(
    server: PrivateRedis,
) -> None:
    """Answers come by order: the place of who was cancelled is kept."""
    async with opened(patient(server)) as stores:
        tier = stores.cached
        for number in range(1, 101):
            await tier.append([write(ConversationKey(number), 1, number, [])])

        async def ask(number: int) -> None:
            found = await tier.read(ConversationKey(number), Seq(0), Seq(number))
            assert [entry.seq for entry in found] == list(range(1, number + 1))

        for round_ in range(20):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(number)) for number in range(1, 101)]
                await asyncio.sleep(0)
                for task in tasks[round_ % 3 :: 3]:
                    task.cancel()
        await ask(100)


@pytest.mark.parametrize("taken", ["entries", "head", "offsets", "endpoint:phone"])
@pytest.mark.parametrize("then", ["read", "append", "confirm"])
async def test_a_key_that_a_server_short_of_memory_took_away_only_costs_time(
    server: PrivateRedis, writer: Writer, taken: str, then: str
) -> None:
    """Any of them: then less is cached, and nothing is wrong."""
    source = Source(writer)
    bob = UserId("bob")
    async with opened(patient(server)) as stores:
        tier = stores.cached
        await tier.append(await source.create())
        await tier.append(await source.send(9))
        await tier.load_offsets(ANN, PHONE, {source.key: Seq(1)})
        await source.confirm(tier, [(ANN, PHONE, 2), (bob, PHONE, 3)])
        with server.client() as client:
            client.delete(*(key for key in client.scan_iter() if key.endswith(taken.encode())))
        if then == "append":
            await tier.append(await source.send(2))
        elif then == "confirm":
            await source.confirm(tier, [(ANN, PHONE, 5), (bob, PHONE, 6)])
        await check_everything_read(tier, source)
        await tier.append(await source.send(1))
        await tier.append(await source.send(1))
        assert await check_everything_read(tier, source)
        assert await tier.offsets(ANN, PHONE) in (
            None, {source.key: 2}, {source.key: 5}
        )  # fmt: skip


async def test_a_server_without_memory_takes_heads_over_and_lets_go_of_entries(
    tmp_path: Path, writer: Writer
) -> None:
    """Without eviction; nothing waits for it, who watches is pushed, and it serves again."""
    source, stamp = Source(writer), b"stamp"
    with private_redis(tmp_path, "--maxmemory-policy", "noeviction") as server:
        async with opened(patient(server)) as stores, opened(patient(server), "other") as other:
            tier = stores.cached
            await tier.append(await source.create())
            await tier.append(await source.send(9))
            await other.cached.watch([source.key])
            with server.client() as client:
                client.config_set("maxmemory", "1")
                writes = await source.send(1)
                assert await tier.append(writes, stamp) == {source.key: ["other"]}
                head = writes[-1].conversation.head
                assert await stores.heads.heads([source.key], stamp) == [head]
                assert await tier.read(source.key, Seq(0), head) == ()
                assert tier.evicted[EvictionCause.SPACE] == head - 1
                assert await appended(tier, source)
                client.config_set("maxmemory", "0")
            await tier.append(await source.send(2))
            assert await check_everything_read(tier, source) == [head + 2, head + 3]


async def test_kills_and_pauses_under_load_never_show_anything_wrong(
    server: PrivateRedis, writer: Writer
) -> None:
    """Two workers write and read while the server comes and goes; in the end all is cached."""
    source = Source(writer)
    settings = hasty(server)

    async def load(stores: RedisStores, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await appended(stores.cached, source)
            head = (await view(source.hot, "ann", "g"))[0].head
            seqs = await source.seqs(stores.cached, max(0, head - 20), head)
            assert seqs == list(range(head + 1 - len(seqs), head + 1))
            await source.confirm(stores.cached, [(ANN, PHONE, head), (UserId("bob"), PHONE, head)])
            await asyncio.sleep(0.002)

    async with opened(settings) as one, opened(settings) as two:
        await one.cached.append(await source.create())
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load(one, stop))
            group.create_task(load(two, stop))
            for _ in range(3):
                await asyncio.sleep(0.1)
                server.signal(signal.SIGSTOP)
                await asyncio.sleep(0.2)
                server.signal(signal.SIGCONT)
                await asyncio.sleep(0.1)
                server.kill()
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.start)
            stop.set()
        for stores in (one, two):
            await served_again(stores.cached, source)
        await one.cached.append(await source.send(2))
        assert await check_everything_read(two.cached, source)


async def test_who_watches_is_renewed_before_its_time_and_forgotten_after(
    server: PrivateRedis, writer: Writer
) -> None:
    """A worker that died without a word does not stay for ever."""
    source = Source(writer)
    settings = patient(server, registration_seconds=0.6)
    async with opened(settings, "worker-1") as one:
        await one.cached.append(await source.create())
        async with opened(settings, "worker-2") as two:
            await two.cached.watch([source.key])
            await two.bus.present([ANN])
            until_ = time.monotonic() + 1.5
            while time.monotonic() < until_:
                assert await one.cached.append(await source.send(1)) == {source.key: [worker(2)]}
                assert await one.bus.workers_of([ANN]) == {ANN: [worker(2)]}
                await asyncio.sleep(0.05)
            for task in two._tasks:
                task.cancel()
            async with asyncio.timeout(15):
                while await one.cached.append(await source.send(1)):
                    await asyncio.sleep(0.05)
                while await one.bus.workers_of([ANN]):
                    await asyncio.sleep(0.05)


async def test_what_was_unwatched_while_the_server_was_away_is_taken_out_later(
    tmp_path: Path, writer: Writer
) -> None:
    """Else a living worker would be sent for ever what it does not want."""
    source = Source(writer)
    with private_redis(tmp_path) as server:
        settings = hasty(server, stall_seconds=30.0)
        async with opened(patient(server), "worker-1") as one, opened(settings, "worker-2") as two:
            await two.cached.watch([source.key])
            assert await one.cached.append(await source.create()) == {source.key: [worker(2)]}
            server.signal(signal.SIGSTOP)
            await two.cached.unwatch([ConversationKey(5)])
            await two.cached.unwatch([source.key])  # refused at once: the breaker is open
            server.signal(signal.SIGCONT)
            async with asyncio.timeout(15):
                while await one.cached.append(await source.send(1)):
                    await asyncio.sleep(0.02)


async def test_who_could_watch_only_later_is_told_of_the_gap(
    server: PrivateRedis, writer: Writer
) -> None:
    """The connection outlived it: nothing else would say that a push may be missing."""
    source = Source(writer)
    async with (
        opened(patient(server), "worker-1") as one,
        opened(hasty(server, stall_seconds=30.0), "worker-2") as two,
    ):
        await one.cached.append(await source.create())
        server.signal(signal.SIGSTOP)
        assert await two.cached.read(source.key, Seq(0), Seq(1)) == ()
        await two.cached.watch([source.key])  # refused at once: the breaker is open
        server.signal(signal.SIGCONT)
        assert await take(two.bus, 1) == [None]
        assert await one.cached.append(await source.send(1)) == {source.key: [worker(2)]}
