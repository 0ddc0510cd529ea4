"""Dear work is done by few at a time, and what is cheap does not wait for it."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.errors import Overloaded
from trunkline.services.turns import Turns
from trunkline.testing.loop import SimulatedLoop


def run(story: object) -> None:
    loop = SimulatedLoop(1)
    try:
        loop.run_until_complete(story)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_cheap_work_goes_on_beside_dear_work_which_waits_for_its_turn() -> None:
    async def story() -> None:
        turns, done = Turns(dear=1), []

        async def work(name: str, conversations: int | None, seconds: float) -> None:
            async with turns.of(conversations):
                await asyncio.sleep(seconds)
                done.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(work("dear", 5_000, 2.0))
            group.create_task(work("unknown", None, 2.0))
            group.create_task(work("cheap", 3, 1.0))
            await asyncio.sleep(1.5)
            assert done == ["cheap"]
            await asyncio.sleep(1.0)
            assert len(done) == 2
        assert sorted(done) == ["cheap", "dear", "unknown"]

    run(story())


def test_a_turn_that_does_not_come_is_refused_and_leaves_nothing_behind() -> None:
    async def story() -> None:
        turns = Turns(dear=1)
        async with turns.of(None):
            with pytest.raises(Overloaded):
                async with turns.of(None):
                    pytest.fail("two at a time")
        async with turns.of(None):
            """Free again."""

    run(story())
