"""A slow and broken network between the workers and each tier, and all of them at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes

from trunkline.testing.proxy import Proxy

LATENCY_SECONDS = (0.01, 0.05)
SLICE_BYTES = 37
RESET_SECONDS = (0.1, 0.6)
FAULTY_SECONDS = 1.5

pytestmark = pytest.mark.timeout(7200)


class Network(msgspec.Struct, frozen=True):
    """A proxy in front of each server, and where the tiers are through them."""

    tiers: Tiers
    redis: Proxy
    mysql: tuple[Proxy, ...]
    hbase: Proxy

    def parts(self) -> dict[str, Sequence[Proxy]]:
        """What is made bad at a time."""
        tiers = {"Redis": [self.redis], "MySQL": self.mysql, "HBase": [self.hbase]}
        return {**tiers, "all": [proxy for proxies in tiers.values() for proxy in proxies]}


@pytest.fixture
async def network(tiers: Tiers, chance: random.Random) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:

        async def before(host: str, port: int) -> Proxy:
            return await stack.enter_async_context(Proxy(host, port, chance))

        host, _, port = tiers.redis.rpartition(":")
        redis = await before(host, int(port))
        mysql = [await before(place.host, place.port) for place in tiers.mysql.databases]
        hbase = await before(tiers.hbase.host, tiers.hbase.port)
        places = tuple(
            msgspec.structs.replace(place, host="127.0.0.1", port=proxy.port)
            for place, proxy in zip(tiers.mysql.databases, mysql, strict=True)
        )
        through = Tiers(
            msgspec.structs.replace(tiers.mysql, databases=places),
            f"127.0.0.1:{redis.port}",
            msgspec.structs.replace(tiers.hbase, host="127.0.0.1", port=hbase.port),
        )
        yield Network(through, redis, tuple(mysql), hbase)


def slow(proxies: Sequence[Proxy]) -> None:
    for proxy in proxies:
        proxy.latency_seconds = LATENCY_SECONDS


def sliced(proxies: Sequence[Proxy]) -> None:
    for proxy in proxies:
        proxy.slice_bytes = SLICE_BYTES


def fair(proxies: Sequence[Proxy]) -> None:
    for proxy in proxies:
        proxy.latency_seconds = (0.0, 0.0)
        proxy.slice_bytes = 0
        proxy.cut_after_bytes = None


async def reset_at_random(proxies: Sequence[Proxy], chance: random.Random) -> None:
    """Resets all connections now and then, and cuts the new ones somewhere in an answer."""
    while True:
        for proxy in proxies:
            proxy.cut_after_bytes = chance.choice((None, chance.randrange(1_000, 100_000)))
            proxy.reset_all()
        await asyncio.sleep(chance.uniform(*RESET_SECONDS))


async def broken(load: ClusterUnderLoad, proxies: Sequence[Proxy], chance: random.Random) -> None:
    """Connections are reset for a while; what is asked then may be refused, retryably."""
    async with asyncio.TaskGroup() as group:
        resetting = group.create_task(reset_at_random(proxies, chance))
        await asyncio.sleep(FAULTY_SECONDS)
        resetting.cancel()
    fair(proxies)
    await load.goes_on()


async def test_a_bad_network_to_any_tier_loses_nothing(
    tmp_path: Path,
    network: Network,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given a cluster under load, when the way to one tier or to all of them is slow, or passes
    small pieces, then users are served meanwhile; when it is reset again and again, afterwards;
    and nothing acknowledged is lost or doubled."""
    rounds = strikes(10)
    async with ClusterUnderLoad(tmp_path, network.tiers) as load:
        await load.goes_on()
        for _ in range(rounds):
            for proxies in network.parts().values():
                for make_bad in (slow, sliced):
                    make_bad(proxies)
                    await load.goes_on()
                    fair(proxies)
                await broken(load, proxies, chance)
        opened = {
            name: sum(proxy.opened for proxy in proxies)
            for name, proxies in network.parts().items()
        }
        tell(f"{rounds} rounds, connections opened: {opened}, {await load.verdict()}")
