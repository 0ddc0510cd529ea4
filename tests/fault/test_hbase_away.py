"""HBase is away for minutes under load, and killed: sends go on, hot keeps what cold lacks, and
what left hot is there (I8, I10)."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes
from databases import everywhere
from hbase_server import private_hbase
from redis_server import PrivateRedis
from thrift_server import PrivateThrift, private_thrift

from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.mysql.settings import Settings

SHORT_ROUNDS = 10
"""With fewer rounds than this it is away for a moment only."""
AWAY_SECONDS = (6.0, 180.0)
UNDER_WAY_SECONDS = 2.0
"""What was copied before may still be trimmed."""
REFUSED_SECONDS = 60.0
"""Most of what is pulled is still served from above."""
ARCHIVED_SECONDS = 60.0
REFUSED = "tier_unavailable"


class Positions(msgspec.Struct, frozen=True):
    """Sums over all conversations."""

    heads: int
    archived: int
    trimmed: int


async def positions(settings: Settings) -> Positions:
    rows = await everywhere(
        settings, "SELECT SUM(head), SUM(archived_up_to), SUM(trimmed_up_to) FROM conversation"
    )
    return Positions(*(sum(int(row[0][n] or 0) for row in rows) for n in range(3)))


async def until_cold_is_asked(load: ClusterUnderLoad, settings: Settings) -> None:
    """Waits until most of what pullers ask for has left hot."""
    async with asyncio.timeout(60.0):
        while (found := await positions(settings)).trimmed < found.heads / 2:
            await asyncio.sleep(0.1)


async def away(load: ClusterUnderLoad, settings: Settings, seconds: float) -> None:
    """While the tier is away sends go on, and nothing leaves hot."""
    over = time.monotonic() + seconds
    await asyncio.sleep(UNDER_WAY_SECONDS)
    before = await positions(settings)
    refused = _refused(load)
    await load.goes_on(pulls=False)
    async with asyncio.timeout(REFUSED_SECONDS):
        while _refused(load) == refused:
            await asyncio.sleep(0.1)
    await asyncio.sleep(over - time.monotonic())
    after = await positions(settings)
    assert (after.archived, after.trimmed) == (before.archived, before.trimmed), "I10"
    assert after.heads > before.heads


def _refused(load: ClusterUnderLoad) -> int:
    return sum(puller.refused[REFUSED] for puller in load.pullers)


async def until_archived(settings: Settings) -> float:
    """Waits until cold has everything; returns how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(ARCHIVED_SECONDS):
        while (found := await positions(settings)).archived < found.heads:
            await asyncio.sleep(0.1)
    return time.monotonic() - began


def strike(server: PrivateThrift, number: int) -> Callable[[], None]:
    """Kills it, or has it answer nothing, by turns; returns what brings it back."""
    if number % 2:
        server.signal(signal.SIGSTOP)
        return lambda: server.signal(signal.SIGCONT)
    server.kill()
    return server.start


@pytest.mark.timeout(7200)
async def test_sends_go_on_while_hbase_is_away_and_hot_keeps_what_cold_lacks(
    tmp_path: Path, tiers: Tiers, strikes: Strikes, tell: Callable[[str], None]
) -> None:
    """Given a cluster under load whose old history is in cold, when cold is away, then sends go
    on, pulls of old history are refused retryably and nothing leaves hot; when it is back, then
    pulls of all that was acknowledged are served and the archiver catches up."""
    seconds = AWAY_SECONDS[strikes.rounds >= SHORT_ROUNDS]
    number = strikes(3, least=2)
    with private_thrift(tmp_path / "thrift.log") as server:
        hbase = msgspec.structs.replace(tiers.hbase, port=server.port, call_seconds=1.0)
        own = msgspec.structs.replace(tiers, hbase=hbase)
        async with ClusterUnderLoad(tmp_path, own) as load:
            await until_cold_is_asked(load, tiers.mysql)
            for turn in range(number):
                bring_back = strike(server, turn)
                await away(load, tiers.mysql, seconds)
                await asyncio.to_thread(bring_back)
                await load.goes_on()
            await load.quiet()
            archived = await until_archived(tiers.mysql)
            tell(
                f"HBase away {number} times for {seconds:.0f} s, archived {archived:.0f} s after "
                f"the last send, {await load.verdict()}"
            )


@pytest.mark.timeout(7200)
async def test_what_left_hot_is_there_after_hbase_itself_was_killed(
    tmp_path: Path,
    databases: Settings,
    redis_process: PrivateRedis,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when the one JVM of HBase is killed while entries are copied
    and hot forgets them, and it comes back with its log, then all is pulled as acknowledged."""
    if strikes.rounds < SHORT_ROUNDS:
        pytest.skip("to kill HBase and start it again takes minutes: `make fault`")
    number = strikes(10, least=2)
    with private_hbase(tmp_path / "hbase") as server:
        hbase = HbaseSettings(port=server.port, regions=4, call_seconds=1.0)
        own = Tiers(databases, redis_process.address, hbase)
        async with ClusterUnderLoad(tmp_path, own) as load:
            await until_cold_is_asked(load, databases)
            for _ in range(number):
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                server.kill()
                await away(load, databases, AWAY_SECONDS[0])
                await asyncio.to_thread(server.start)
                await load.goes_on()
            await load.quiet()
            archived = await until_archived(databases)
            tell(
                f"HBase killed {number} times, archived {archived:.0f} s after the last send, "
                f"{await load.verdict()}"
            )
