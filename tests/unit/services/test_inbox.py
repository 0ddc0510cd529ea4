"""What a worker does about what its inbox says was lost."""

from __future__ import annotations

import asyncio

from two_workers import ANN, BEN, GROUP, A, B, Pair, tell, until

from trunkline.wire.frames import Notice, Push


def test_where_a_registration_was_lost_the_watchers_are_told_to_sync_and_nobody_else() -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create(BEN)
        await until(lambda: ben.of(Notice) or ben.of(Push))
        await asyncio.sleep(1.0)
        ben.frames.clear()
        (key,) = pair.backbones[B].registry.keys()
        pair.hub.forget(key)
        await ann.say("to nobody")
        await asyncio.sleep(5.0)
        assert not ben.frames, "nothing was tested"
        pair.hub.find()
        await until(lambda: Notice(GROUP) in ben.frames, seconds=2.0)
        assert pair.count(B, "trunkline_bus_gaps_total") == 0
        await ann.say("to everybody")
        await until(lambda: ben.of(Push), seconds=2.0)

    tell(story)
