"""What one database does not take holds up no marker, and no read offset, of another."""

from __future__ import annotations

import asyncio

import pytest
from torn_hot import TWO, TornHot, Trouble, conversation_on, user_on
from two_workers import ANN, CID, A, B, Pair, tell, until

from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.model import (
    ClientMessageId,
    ConversationKey,
    EndpointId,
    OffsetMove,
    Seq,
)
from trunkline.services.durable_offsets import DurableOffsets
from trunkline.services.metrics import Metrics
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.wire.frames import Create, Done, Error, Mark

AWAY, THERE = 0, 1
LOST, SOUND = conversation_on(AWAY), conversation_on(THERE)
BEN = user_on(THERE, "ben")
SOON_SECONDS = 1.0
DEVICE = EndpointId("device")


def test_a_marker_is_recorded_while_another_database_is_waited_for() -> None:
    """Given two that are moved at once, in two databases, then one is done, the other refused."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        for group in (LOST, SOUND):
            await ann.act(Create(ClientMessageId(f"create {group}"), group, [BEN, CID]))
        ben, cid = await pair.connect(B, BEN), await pair.connect(B, CID)
        pair.torn.away[AWAY], pair.torn.fails = "silent", frozenset({"write"})
        cid.send(Mark(LOST, Seq(1), 1))
        await asyncio.sleep(0.1)
        ben.send(Mark(SOUND, Seq(1), 1))
        await until(lambda: ben.of(Done), SOON_SECONDS)
        await until(lambda: cid.of(Error))
        assert not cid.of(Done)

    tell(story, torn=True)


@pytest.mark.parametrize("trouble", ["dead", "silent"])
def test_offsets_are_recorded_while_another_database_takes_none(trouble: Trouble) -> None:
    loop = SimulatedLoop(1)
    key = ConversationKey(7)
    cut, whole = user_on(AWAY, "cut"), user_on(THERE, "whole")

    async def main() -> None:
        hot = TornHot(MemoryHotStore(SimulatedClock(loop)))
        offsets = DurableOffsets(hot, TWO, Metrics(), interval_seconds=SOON_SECONDS, most=10)
        hot.away[AWAY] = trouble
        async with asyncio.TaskGroup() as group:
            group.create_task(offsets.run())
            for seq in range(1, 4):
                offsets.add(OffsetMove(key, user, DEVICE, Seq(seq)) for user in (cut, whole))
                await asyncio.sleep(1.5 * SOON_SECONDS)
                assert (await hot.offsets(whole, DEVICE))[key] == seq
            assert not await hot.offsets(cut, DEVICE)
            hot.away.clear()
            await asyncio.sleep(20.0)
            assert (await hot.offsets(cut, DEVICE))[key] == 3
            offsets.close()

    try:
        loop.run_until_complete(main())
        assert not loop.faults
    finally:
        loop.close()
