"""Messages between workers are lost, the last before a silence, too: everybody is complete soon."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_process import Tiers
from cluster_under_load import COMPLETE_SECONDS, ClusterUnderLoad, Strikes
from lossy_inbox import Weather

LOSS = 0.2
ALL_LOST_SECONDS = 0.5
REPAIRED_SECONDS = 2.5
"""A beat: what was lost before it has come to light."""

pytestmark = pytest.mark.timeout(7200)


async def complete(load: ClusterUnderLoad, silent: float) -> float:
    """Waits until everybody is complete, not too long after the silence began; returns how long."""
    await load.crowd.converge(silent + COMPLETE_SECONDS - time.monotonic())
    return time.monotonic() - silent


async def last_one_lost(load: ClusterUnderLoad, weather: Weather, chance: random.Random) -> float:
    """One message after a silence in which nothing was left to repair, and its push is lost."""
    weather.loss = 0.0
    await asyncio.sleep(REPAIRED_SECONDS)
    weather.loss = 1.0
    await chance.choice(load.crowd.writers).say(to_group=True)
    silent = time.monotonic()
    await asyncio.sleep(ALL_LOST_SECONDS)
    weather.loss = LOSS
    return await complete(load, silent)


async def test_lost_messages_between_workers_leave_nobody_behind(
    tmp_path: Path,
    weather: Weather,
    lossy_tiers: Tiers,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given two workers whose messages to each other are lost at random, when everybody falls
    silent, and when the last message before a silence is lost for certain, then all endpoints
    are complete within seconds."""
    silences = strikes(50, least=3)
    longest = 0.0
    async with ClusterUnderLoad(tmp_path, lossy_tiers) as load:
        await load.goes_on()
        for _ in range(silences):
            weather.loss = LOSS
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            await load.quiet()
            longest = max(longest, await complete(load, time.monotonic()))
            longest = max(longest, await last_one_lost(load, weather, chance))
            load.write()
        assert weather.dropped > 5 * silences, "nothing was tested"
        tell(
            f"{silences} silences, {weather.dropped} messages between workers lost, complete after "
            f"{longest:.1f} s at the longest, {await load.verdict()}"
        )
