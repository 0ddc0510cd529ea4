"""MySQL's sessions are killed in their commits, and MySQL itself: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import math
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes
from databases import database, kill_session
from mariadb_server import private_mariadb

from trunkline.adapters.mysql.settings import Settings

pytestmark = pytest.mark.timeout(7200)


async def kill_commits(settings: Settings, number: int, kills: int, chance: random.Random) -> int:
    """Kills sessions of one database that are committing, and as many at any moment; both."""
    killed: Counter[str] = Counter()
    async with database(settings, number) as opened:
        while killed["COMMIT"] < kills:
            busy = "COMMIT%" if killed["COMMIT"] < killed["other"] else None
            info = await kill_session(opened, chance, busy)
            if info is not None:
                killed["COMMIT" if info.startswith("COMMIT") else "other"] += 1
            await asyncio.sleep(chance.uniform(0.0, 0.005))
    return killed.total()


async def test_sessions_killed_in_their_commits_lose_nothing_and_double_nothing(
    tmp_path: Path,
    tiers: Tiers,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when the sessions of its workers are killed while they commit,
    then the outcome of each is settled: acknowledged once, at one seq (I4, I6)."""
    kills = strikes(300)
    async with ClusterUnderLoad(tmp_path, tiers) as load:
        await load.goes_on()
        places = range(len(tiers.mysql.databases))
        killed = await asyncio.gather(
            *(kill_commits(tiers.mysql, n, math.ceil(kills / len(places)), chance) for n in places)
        )
        await load.goes_on()
        tell(f"{kills} sessions killed in COMMIT, {sum(killed)} in all, {await load.verdict()}")


async def test_a_mysql_that_is_killed_or_stopped_and_restarted_loses_nothing(
    tmp_path: Path,
    tiers: Tiers,
    campaign: str,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when its database server is killed or stopped, then sends wait;
    when it is back they go on, and what was acknowledged before is there."""
    restarts = strikes(20, least=2)
    with private_mariadb(tmp_path / "mariadb") as server:
        settings = server.settings(campaign)
        for place in settings.databases:
            server.execute(f"CREATE DATABASE {place.database}")
        own = msgspec.structs.replace(tiers, mysql=settings)
        async with ClusterUnderLoad(tmp_path, own) as load:
            await load.goes_on()
            for number in range(restarts):
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                how = (signal.SIGKILL, signal.SIGTERM)[number % 2]
                await asyncio.to_thread(server.end, how)
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                await asyncio.to_thread(server.start)
                await load.goes_on()
            tell(f"MySQL restarted {restarts} times, {await load.verdict()}")
