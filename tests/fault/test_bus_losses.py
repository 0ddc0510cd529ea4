"""Messages between workers are lost, the last before a silence, too: everybody is complete soon."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes
from lossy_inbox import Weather
from redis_server import PrivateRedis

from trunkline.testing.proxy import Proxy

LOSS = 0.2
COMPLETE_SECONDS = 10.0
ALL_LOST_SECONDS = 0.5

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture
async def weather(
    redis_process: PrivateRedis, chance: random.Random
) -> AsyncIterator[tuple[Weather, str]]:
    """What befalls the messages of a Redis, and the address at which it does."""
    weather = Weather(chance)
    async with Proxy("127.0.0.1", redis_process.port) as proxy:
        proxy.filtered = weather.inbox
        yield weather, f"127.0.0.1:{proxy.port}"


async def test_lost_messages_between_workers_leave_nobody_behind(
    tmp_path: Path,
    tiers: Tiers,
    weather: tuple[Weather, str],
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given two workers whose messages to each other are lost at random, when everybody falls
    silent and the last are lost for certain, then all endpoints are complete within seconds."""
    silences = strikes(50, least=2)
    lossy, address = weather
    longest = 0.0
    async with ClusterUnderLoad(tmp_path, msgspec.structs.replace(tiers, redis=address)) as load:
        await load.goes_on()
        for _ in range(silences):
            lossy.loss = LOSS
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            await load.quiet()
            lossy.loss = 1.0
            await asyncio.gather(*(w.say(to_group=True) for w in load.crowd.writers))
            await asyncio.gather(*(w.say(to_group=False) for w in load.crowd.writers))
            silent = time.monotonic()
            await asyncio.sleep(ALL_LOST_SECONDS)
            lossy.loss = LOSS
            await load.crowd.converge(silent + COMPLETE_SECONDS - time.monotonic())
            longest = max(longest, time.monotonic() - silent)
            load.write()
        assert lossy.dropped > 5 * silences, "nothing was tested"
        tell(
            f"{silences} silences, {lossy.dropped} messages between workers lost, complete after "
            f"{longest:.1f} s at the longest, {await load.verdict()}"
        )
