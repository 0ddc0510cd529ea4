"""What stops the start, and the bounds of what waits: login, TLS, commands, packets."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis_server import (
    FAR_MORE_SECONDS,
    PrivateRedis,
    opened,
    patient,
    private_redis,
    until,
)

from trunkline.adapters.redis.stores import RedisStores
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq, UserId, WorkerId
from trunkline.testing.conformance.bus import take
from trunkline.testing.conformance.cached_eviction import write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    with private_redis(tmp_path) as found:
        yield found


async def test_a_server_that_is_not_there_at_the_start_is_used_once_it_is(
    server: PrivateRedis,
) -> None:
    server.kill()
    async with opened(patient(server, reconnect_seconds=0.1), "me") as stores:
        health = stores.health()
        assert health.failure() == "tier_unavailable"
        with pytest.raises(TierUnavailable, match=server.address):
            await stores.cached.append([write(ConversationKey(1), 1, 1, [])])
        server.start()
        await used(stores)
        assert not health.failure()


async def test_a_server_that_does_not_answer_holds_a_start_up_for_no_longer_than_set(
    server: PrivateRedis,
) -> None:
    server.signal(signal.SIGSTOP)
    started = time.monotonic()
    settings = patient(server, connect_seconds=0.2, reconnect_seconds=0.1)
    async with opened(settings, "me") as stores:
        assert time.monotonic() - started < FAR_MORE_SECONDS
        server.signal(signal.SIGCONT)
        await used(stores)


async def used(stores: RedisStores) -> None:
    """Waits until the tier takes an entry over and the inbox takes a packet."""
    async with asyncio.timeout(FAR_MORE_SECONDS):
        while True:
            with suppress(TierUnavailable):
                await stores.cached.append([write(ConversationKey(1), 1, 1, [])])
                if not await stores.bus.publish({WorkerId("me"): b"to myself"}):
                    return
            await asyncio.sleep(0.05)


async def test_a_login_is_checked_at_the_start(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        with server.client() as client:
            client.acl_setuser(
                "trunkline", enabled=True, passwords=["+sesame"], keys=["*"], channels=["*"],
                categories=["+@all"],
            )  # fmt: skip
            client.acl_setuser("default", enabled=False)
        async with opened(patient(server, user="trunkline", password="sesame")) as stores:
            await stores.cached.append([write(ConversationKey(1), 1, 1, [])])
        for wrong in ({}, {"user": "trunkline", "password": "open"}):
            with pytest.raises(TierUnavailable, match=r"NOAUTH|WRONGPASS"):
                async with opened(patient(server, **wrong)):
                    pass


async def test_more_than_the_bound_in_flight_is_refused_at_once(server: PrivateRedis) -> None:
    """A server that is slow must not fill this one's memory."""
    async with opened(patient(server, in_flight=12)) as stores:
        ann, phone = UserId("ann"), EndpointId("phone")
        moves = [OffsetMove(ConversationKey(n), ann, phone, Seq(1)) for n in range(20)]
        await stores.cached.confirm(moves, {})
        with pytest.raises(TierUnavailable, match="behind"):
            await stores.cached.append([write(ConversationKey(n), 1, 1, []) for n in range(11)])
        await stores.cached.append([write(ConversationKey(n), 1, 1, []) for n in range(10)])


async def test_a_reader_that_is_too_slow_is_told_of_the_loss(server: PrivateRedis) -> None:
    """The inbox is bounded."""
    async with opened(patient(server, inbox_packets=5), "worker-1") as stores:
        for number in range(8):
            await stores.bus.publish({worker(1): b"%d" % number})
        await until(lambda: len(stores.bus._backlog) == 4, "all arrived")
        assert await take(stores.bus, 4) == [None, b"5", b"6", b"7"]


def worker(number: int) -> WorkerId:
    return WorkerId(f"worker-{number}")
