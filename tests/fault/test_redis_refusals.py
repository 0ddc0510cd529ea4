"""Redis is there and is not the tier, or not the one that it was: everybody is complete soon."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cluster_process import Tiers
from cluster_under_load import COMPLETE_SECONDS, ClusterUnderLoad, Strikes
from redis_server import PrivateRedis, private_redis

from trunkline.testing.proxy import Proxy

pytestmark = pytest.mark.timeout(7200)


async def complete(load: ClusterUnderLoad) -> float:
    """Everybody falls silent and is complete soon; returns how long that took."""
    await load.quiet()
    silent = time.monotonic()
    await load.crowd.converge(COMPLETE_SECONDS)
    load.write()
    return time.monotonic() - silent


async def test_a_redis_that_is_emptied_or_loses_a_key_leaves_nobody_behind(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its living Redis is emptied, or forgets who watches some
    conversations, and everybody falls silent, then all endpoints are complete within seconds."""
    times, longest = strikes(20), 0.0
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        with redis_process.client() as client:
            for _ in range(times):
                client.flushall()
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                longest = max(longest, await complete(load))
                await load.goes_on()
                watched = client.keys("*:watchers")
                assert watched, "nothing was tested"
                client.delete(*chance.sample(watched, len(watched) // 2 + 1))
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                longest = max(longest, await complete(load))
                await load.goes_on()
        tell(
            f"Redis emptied and robbed of keys {times} times, complete after {longest:.1f} s at "
            f"the longest, {await load.verdict()}"
        )


@pytest.fixture
def other_redis(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A second server, to become the primary in turn."""
    folder = tmp_path / "other-redis"
    folder.mkdir()
    with private_redis(folder) as server:
        yield server


@pytest.fixture
async def address(redis_process: PrivateRedis) -> AsyncIterator[Proxy]:
    """What the workers know Redis by."""
    async with Proxy("127.0.0.1", redis_process.port) as proxy:
        yield proxy


async def test_a_demoted_redis_and_an_address_that_moves_leave_nobody_behind(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    other_redis: PrivateRedis,
    address: Proxy,
    strikes: Strikes,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its Redis becomes a replica with every socket left open,
    then users are served meanwhile; and when the address names the new primary, then all
    endpoints are complete within seconds."""
    times, longest = strikes(20), 0.0
    tiers = msgspec.structs.replace(tiers, redis=f"127.0.0.1:{address.port}")
    primary, replica = redis_process, other_redis
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        for _ in range(times):
            with primary.client() as old, replica.client() as new:
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", replica.port)
            await load.goes_on()
            address.server_address = ("127.0.0.1", replica.port)
            longest = max(longest, await complete(load))
            await load.goes_on()
            primary, replica = replica, primary
        tell(
            f"Redis demoted and moved {times} times, complete after {longest:.1f} s at the "
            f"longest, {await load.verdict()}"
        )
