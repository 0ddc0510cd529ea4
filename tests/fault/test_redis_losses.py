"""Redis is wiped, restored old, paused and full under load: it costs time, never a message."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from cluster_process import Tiers
from cluster_under_load import COMPLETE_SECONDS, ClusterUnderLoad, Strikes
from redis_server import PrivateRedis, until

SHORT_ROUNDS = 10
"""With fewer rounds than this a pause is short, too."""
PAUSE_SECONDS = (5.0, 10.0)
WORKERS = 2

pytestmark = pytest.mark.timeout(7200)


def subscribed(client: redis.Redis) -> bool:
    """Whether both workers listen to their inboxes."""
    return len(client.pubsub_shardchannels()) == WORKERS


async def test_a_redis_that_comes_back_empty_costs_no_message(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its Redis is killed, then sends and pulls go on without
    it; when it is back, empty, then everybody becomes complete again."""
    wipes = strikes(30)
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        for _ in range(wipes):
            redis_process.kill()
            await load.goes_on()
            await asyncio.to_thread(redis_process.start)
            await load.goes_on()
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        tell(f"Redis wiped {wipes} times, {await load.verdict()}")


async def test_a_redis_restored_from_an_old_snapshot_is_not_believed(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a snapshot of Redis and messages that came after it, when Redis starts with the
    snapshot and nobody writes, then a new endpoint is not shown what it holds as if it were
    all; and when they write again, then nobody is left behind."""
    restores = strikes(10)
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        for _ in range(restores):
            with redis_process.client() as client:
                client.save()
            await load.goes_on()
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await load.quiet()
            await load.crowd.converge()
            redis_process.kill()
            await asyncio.to_thread(redis_process.start)
            with redis_process.client() as client:
                assert client.dbsize(), "nothing was tested"
                await until(lambda c=client: subscribed(c), "both workers are back")
            await load.judge()
            load.write()
            await load.goes_on()
        tell(f"Redis restored old {restores} times, {await load.verdict()}")


async def test_sends_go_on_while_redis_is_paused(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    strikes: Strikes,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its Redis answers nothing for a while and then goes on
    where it stood, then users are served meanwhile, and everybody is complete afterwards."""
    pauses = strikes(3)
    seconds = PAUSE_SECONDS[strikes.rounds >= SHORT_ROUNDS]
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        for _ in range(pauses):
            redis_process.signal(signal.SIGSTOP)
            over = time.monotonic() + seconds
            try:
                await load.goes_on(within_seconds=seconds)
                await asyncio.sleep(over - time.monotonic())
            finally:
                redis_process.signal(signal.SIGCONT)
            await load.goes_on()
        tell(f"Redis paused {pauses} times for {seconds:.0f} s, {await load.verdict()}")


async def test_sends_and_pushes_go_on_while_redis_is_full(
    tmp_path: Path,
    tiers: Tiers,
    redis_process: PrivateRedis,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its Redis has no memory left, then users are served
    meanwhile, everybody is complete, and is so as well once there is room again."""
    times = strikes(20)
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        with redis_process.client() as client:
            for _ in range(times):
                client.config_set("maxmemory", 1)
                await load.goes_on()
                await load.quiet()
                await load.crowd.converge(COMPLETE_SECONDS)
                load.write()
                client.config_set("maxmemory", 0)
                await load.goes_on()
                await asyncio.sleep(chance.uniform(0.0, 1.0))
        tell(f"Redis full {times} times, {await load.verdict()}")
