"""kill -9 of a cluster's workers under load: what was acknowledged is there (I1 to I7, I14)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes

STARTED_SECONDS = 30.0


@pytest.mark.timeout(7200)
async def test_killed_workers_lose_nothing(
    tmp_path: Path,
    tiers: Tiers,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given two workers under load, when one after the other is killed and started again, then
    its users go on at the other one, and nothing acknowledged is lost or doubled."""
    kills = strikes(100)
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        for _ in range(kills):
            before = load.cluster.workers()
            victim = chance.choice(before)
            os.kill(victim, signal.SIGKILL)
            await load.goes_on()
            async with asyncio.timeout(STARTED_SECONDS):
                while len(set(load.cluster.workers()) - {victim}) < len(before):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        tell(f"{kills} workers killed, {await load.verdict()}")
