"""A lane's two writers: what another worker holds goes on in the second, in its senders' order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from trunkline.core.appending import CONTENDED, Accepted, Decision, Outcome
from trunkline.errors import (
    BatchRefused,
    OutcomeUnknown,
    Overloaded,
    StorageUnavailable,
    TrunklineError,
)
from trunkline.model import ClientMessageId, ConversationId, Draft, Kind, Seq, UserId
from trunkline.ports.hot import Decide
from trunkline.services.fanout import Item
from trunkline.services.lane import Bounds, Lane, Unknown
from trunkline.services.metrics import Metrics
from trunkline.testing.conformance import SteppedClock

HELD = ConversationId("held")
FREE = ConversationId("free")


def draft(conversation: ConversationId, number: int, body: str = "") -> Draft:
    message_id = ClientMessageId(f"{conversation} {number}")
    return Draft(conversation, UserId("ann"), message_id, Kind.MESSAGE, 0, body)


class HeldHot:
    """A hot store in which another worker holds one conversation until it lets go.

    What does not wait for it goes on while `goes` is set.
    """

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.goes = asyncio.Event()
        self.goes.set()
        self.fails: TrunklineError | None = None
        self.poison = self.lets_go_for = ClientMessageId("")
        self.poisoned: Exception = BatchRefused()
        self.stored: list[str] = []
        self.batches: list[int] = []
        self.waited: list[bool] = []
        self.events: list[str] = []

    async def append(self, batch: Sequence[Draft], decide: Decide, *, wait: bool) -> Decision:
        self.batches.append(len(batch))
        self.waited.append(wait)
        self.events.append("append")
        if [one.client_message_id for one in batch] == [self.lets_go_for]:
            self.let_go.set()
        if wait:
            await self.let_go.wait()
            if self.fails is not None:
                raise self.fails
        else:
            await self.goes.wait()
        await asyncio.sleep(0)
        if self.poison in {one.client_message_id for one in batch}:
            raise self.poisoned
        outcomes: list[Outcome] = []
        for one in batch:
            if one.conversation == HELD and not self.let_go.is_set():
                outcomes.append(CONTENDED)
                continue
            self.stored.append(one.client_message_id)
            outcomes.append(Accepted(Seq(len(self.stored)), 0))
        return Decision(outcomes, [])


class Running:
    """A lane over such a store, and what it answered."""

    def __init__(self) -> None:
        self.hot = HeldHot()
        self.answered: list[str] = []
        self.refused: list[str] = []
        self.settled: list[ConversationId] = []
        self.clock = SteppedClock()
        self.lane = Lane(
            self.hot, None, self.clock, Metrics(),  # type: ignore[arg-type]
            begin=self._begin, committed=self._committed, refuse=self._refuse,
            settled=self._settled, bounds=Bounds(100, 1 << 20, 4, 100_000),
        )  # fmt: skip

    def submit(self, *drafts: Draft) -> None:
        for one in drafts:
            self.lane.submit((one, None))  # type: ignore[arg-type]

    async def _begin(self) -> None:
        self.hot.events.append("begin")

    async def _committed(self, items: Sequence[Item], decision: Decision, lease: object) -> None:
        assert len(items) == len(decision.outcomes) > 0
        assert all(isinstance(outcome, Accepted) for outcome in decision.outcomes)
        self.answered += [one.client_message_id for one, _ in items]

    def _refuse(self, items: Sequence[Item], error: TrunklineError) -> None:
        self.refused += [one.client_message_id for one, _ in items]

    async def _settled(self, unknown: Unknown) -> None:
        self.settled += [conversation for conversation, _ in unknown]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def running() -> Running:
    return Running()


async def test_a_held_conversation_holds_up_no_other_and_keeps_its_order(running: Running) -> None:
    """I7: also what comes while it is held, and after it was let go."""
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(draft(HELD, 0), draft(FREE, 0), draft(HELD, 1))
        await turns()
        running.submit(*(draft(HELD, number) for number in range(2, 9)), draft(FREE, 1))
        await turns()
        assert running.answered == ["free 0", "free 1"]
        running.hot.let_go.set()
        running.submit(draft(HELD, 9))
        await turns()
        running.submit(draft(HELD, 10))
        running.lane.drain()
    held = [name for name in running.answered if name.startswith("held")]
    assert held == [f"held {number}" for number in range(11)]
    assert [name for name in running.hot.stored if name.startswith("held")] == held
    assert 0 not in running.hot.batches


async def test_what_waited_in_vain_is_refused_and_the_next_is_quick_again(running: Running) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(draft(HELD, 0))
        await turns()
        running.hot.fails = StorageUnavailable()
        running.hot.let_go.set()
        await turns()
        assert running.refused == ["held 0"]
        running.hot.fails = None
        running.submit(draft(HELD, 1))
        await turns()
        running.clock.advance(1.0)
        running.submit(draft(HELD, 2))
        await turns()
        assert running.answered == ["held 1", "held 2"]
        assert running.hot.waited == [False, True, True, False]
        running.lane.drain()


async def test_a_contended_conversation_lets_a_batch_of_the_others_go_first(
    running: Running,
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(draft(HELD, 0))
        await turns()
        running.hot.let_go.set()
        await turns()
        running.hot.goes.clear()
        running.submit(draft(HELD, 1), draft(FREE, 1))
        await turns()
        assert running.hot.waited == [False, True, False]
        running.submit(draft(HELD, 2))
        running.hot.goes.set()
        await turns()
        running.lane.drain()
    assert running.hot.waited == [False, True, False, True]
    assert running.hot.batches == [1, 1, 1, 2]


async def test_draining_waits_for_what_is_held(running: Running) -> None:
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(running.lane.run())
        running.submit(draft(HELD, 0))
        await turns()
        running.lane.drain()
        await turns()
        assert not ended.done()
        running.hot.let_go.set()
    assert running.answered == ["held 0"]


async def test_what_a_commit_is_acknowledged_under_is_asked_for_before_it(running: Running) -> None:
    """I4: what is known after a commit may be newer than a head that it leaves."""
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        for number in range(3):
            running.submit(draft(FREE, number))
            await turns()
        running.lane.drain()
    assert running.hot.events == ["begin", "append"] * 3


async def test_a_commit_settles_nothing_that_became_unknown_while_it_was_under_way(
    running: Running,
) -> None:
    """The store settles what was unknown before: of what came since it knows nothing."""
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(draft(HELD, 0))
        await turns()
        running.hot.goes.clear()
        running.submit(draft(FREE, 0))
        await turns()
        running.hot.fails = OutcomeUnknown()
        running.hot.let_go.set()
        await turns()
        assert running.refused == ["held 0"]
        running.hot.goes.set()
        await turns()
        assert running.answered == ["free 0"]
        assert running.settled == []
        running.submit(draft(FREE, 1))
        await turns()
        assert running.settled == [HELD]
        running.lane.drain()


@pytest.mark.parametrize("why", [BatchRefused("too large"), UnicodeEncodeError("x", "", 0, 1, "y")])
async def test_a_draft_that_the_store_does_not_take_fails_alone(
    running: Running, why: Exception
) -> None:
    running.hot.poison, running.hot.poisoned = ClientMessageId("free 2"), why
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(*(draft(FREE, number) for number in range(8)))
        await turns()
        running.lane.drain()
    assert running.refused == ["free 2"]
    assert running.answered == [f"free {number}" for number in range(8) if number != 2]


async def test_what_was_handed_on_from_one_half_of_a_batch_is_not_overtaken_by_the_other(
    running: Running,
) -> None:
    """I7."""
    running.hot.poison = ClientMessageId("free 0")
    running.hot.lets_go_for = ClientMessageId("held 1")
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        running.submit(draft(HELD, 0), draft(FREE, 1), draft(FREE, 0), draft(HELD, 1))
        await turns()
        running.hot.let_go.set()
        await turns()
        running.lane.drain()
    assert running.refused == ["free 0"]
    assert [name for name in running.hot.stored if name.startswith("held")] == ["held 0", "held 1"]


async def test_batches_and_the_queue_are_bounded_in_bytes(running: Running) -> None:
    large = "x" * 60_000
    for number in range(17):
        running.submit(draft(FREE, number, large))
    with pytest.raises(Overloaded):
        running.submit(draft(FREE, 17, large))
    async with asyncio.TaskGroup() as group:
        group.create_task(running.lane.run())
        await turns(200)
        running.submit(*(draft(FREE, number) for number in range(17, 21)))
        running.lane.drain()
    assert running.hot.batches == [1] * 17 + [4]
    assert len(running.answered) == 21
