"""A member is removed while others write and workers miss or get late what they tell each other.

I13: whatever a worker knows, nothing from behind the removal is written to who was removed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cluster_process import Tiers
from cluster_under_load import ClusterUnderLoad, Strikes
from crowd import GROUP, client_of, token_of
from lossy_inbox import Weather
from puller import greeted

from trunkline.client import Client

OUTSIDER = "outsider"
CONNECTIONS = 8
"""So many that both workers serve some: chances are 255 to 1."""
SEEN_SECONDS = 30.0
SETTLED_SECONDS = 3.0
"""A beat, and what it brings to light."""
Span = tuple[int, int]

pytestmark = pytest.mark.timeout(7200)


class Outsider:
    """The connections of somebody who comes and goes; they keep nothing but what was pushed."""

    def __init__(self) -> None:
        self.pushed: list[set[int]] = [set() for _ in range(CONNECTIONS)]

    @asynccontextmanager
    async def listening(self, load: ClusterUnderLoad) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._listen(load, n)) for n in range(CONNECTIONS)]
            yield
            for task in tasks:
                task.cancel()

    async def until_pushed(self, after: int) -> None:
        """Waits until every connection was pushed something from behind this position."""
        async with asyncio.timeout(SEEN_SECONDS):
            while any(max(seqs, default=0) <= after for seqs in self.pushed):
                await asyncio.sleep(0.02)

    async def _listen(self, load: ClusterUnderLoad, number: int) -> None:
        token = token_of(load.keys, OUTSIDER)
        url, name = load.cluster.told["url"], f"endpoint {number}"
        async with greeted(url, token, binary=number % 2 == 0, endpoint=name) as client:
            async for message in client.socket:
                frame = client.decode(message)
                if frame["t"] == "push" and frame["conversation"] == GROUP:
                    self.pushed[number].update(entry["seq"] for entry in frame["entries"])


async def come_and_go(
    owner: Client, outsider: Outsider, weather: Weather, chance: random.Random, number: int
) -> list[Span]:
    """Adds the outsider and removes them while messages are lost or late; when they were in.

    `number`: by turns they are lost or late, and the outsider stays away or comes back at once.
    """
    joined = await owner.add(GROUP, [OUTSIDER])
    await outsider.until_pushed(joined.seq)
    weather.late = number % 2 == 0
    weather.loss = 0.0 if weather.late else chance.choice((0.3, 1.0))
    left = await owner.remove(GROUP, [OUTSIDER])
    spans = [(int(joined.seq), int(left.seq))]
    await asyncio.sleep(chance.uniform(0.1, 1.0))
    if number % 4 < 2:
        # What is still on its way was written while they were out.
        again = await owner.add(GROUP, [OUTSIDER])
        weather.late, weather.loss = False, 0.0
        await outsider.until_pushed(again.seq)
        left = await owner.remove(GROUP, [OUTSIDER])
        spans.append((int(again.seq), int(left.seq)))
    weather.late, weather.loss = False, 0.0
    await asyncio.sleep(SETTLED_SECONDS)
    return spans


async def check_view(load: ClusterUnderLoad, span: Span) -> None:
    """A new endpoint of somebody who is out gets what they may still see, and no more."""
    client = client_of(load.cluster.told["url"], load.keys, OUTSIDER, "fresh")
    async with client:
        await client.wait_synced()
        messages = await client.history(GROUP)
        assert [message.seq for message in messages] == list(range(span[0], span[1] + 1))
        assert client.conversation(GROUP).left


async def test_who_was_removed_is_shown_nothing_from_behind_the_removal(
    tmp_path: Path,
    weather: Weather,
    lossy_tiers: Tiers,
    strikes: Strikes,
    chance: random.Random,
    tell: Callable[[str], None],
) -> None:
    """Given members who write through two workers, when one is removed and a worker misses it or
    learns it late, then none of their connections is sent an entry from outside of their view."""
    removals = strikes(50, least=4)
    outsider, spans = Outsider(), list[Span]()
    async with ClusterUnderLoad(tmp_path, lossy_tiers) as load:
        await load.goes_on()
        async with outsider.listening(load):
            owner = load.crowd.writers[0].client
            for number in range(removals):
                spans += await come_and_go(owner, outsider, weather, chance, number)
            await check_view(load, spans[-1])
        allowed = {seq for first, last in spans for seq in range(first, last + 1)}
        for seqs in outsider.pushed:
            assert seqs <= allowed, f"I13: pushed {sorted(seqs - allowed)[:5]}, views {spans}"
        tell(f"{len(spans)} removals, {weather.dropped} messages lost, {await load.verdict()}")
