"""What a worker that died told nobody is found, by a resend or a comparison, and told once the
cached tier has it.
"""

from __future__ import annotations

import asyncio

import pytest
from two_workers import ANN, BEN, CID, GROUP, LONG_SECONDS, A, B, Pair, tell, until

from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.digest import to_hex, vector_digest
from trunkline.errors import StorageUnavailable, TierUnavailable
from trunkline.model import ClientMessageId, Seq
from trunkline.wire.frames import Acked, Error, Send, Sync, Synced

REPAIRED_SECONDS = 5.0
"""A beat and a comparison."""
OPEN_SECONDS = 5.0
"""After which cached heads are believed."""


async def _late(*_: object) -> None:
    await asyncio.sleep(LONG_SECONDS)
    raise TierUnavailable("It took too long.")


async def _failing(*_: object) -> object:
    raise TierUnavailable


class OneViewLost:
    """A hot store whose next question for views is not answered."""

    def __init__(self, hot: MemoryHotStore) -> None:
        self._hot = hot
        self._views = self._lost

    def __getattr__(self, name: str) -> object:
        return getattr(self._hot, name)

    async def views(self, *question: object) -> object:
        return await self._views(*question)

    async def _lost(self, *_: object) -> object:
        self._views = self._hot.views  # type: ignore[assignment]
        raise StorageUnavailable


def test_a_resend_tells_what_its_first_worker_died_before_telling() -> None:
    """DESIGN section 3, step 6."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        message = Send(ClientMessageId("once"), "body", GROUP)
        publisher = pair.backbones[A]._crossing._publisher  # type: ignore[union-attr]
        publish, publisher.frame = publisher.frame, lambda frame, workers: None  # type: ignore[method-assign]
        await ann.act(message)
        publisher.frame = publish  # type: ignore[method-assign]
        await asyncio.sleep(10.0)
        assert not ben.notices()
        await ann.act(message)
        await until(lambda: ben.notices(), REPAIRED_SECONDS)

    tell(story)


def test_a_resend_whose_conversation_cannot_be_read_is_not_acknowledged() -> None:
    """I4: its first worker died before the cached tier had it, so no sync would name it."""

    async def story(pair: Pair) -> None:
        await asyncio.sleep(OPEN_SECONDS)
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        message = Send(ClientMessageId("once"), "body", GROUP)
        pair.backbones[A]._crossing._cached.append = _late  # type: ignore[union-attr,method-assign]
        ann.send(message)
        await asyncio.sleep(1.0)
        pair.hub.close(A)

        again, ben = await pair.connect(B, ANN), await pair.connect(B, BEN)
        crossing = pair.backbones[B]._crossing
        crossing._hot = OneViewLost(pair.hot)  # type: ignore[union-attr]
        again.send(message, Send(ClientMessageId("another"), "body", to=CID))
        await until(lambda: again.of(Error) and again.of(Acked))
        assert [(error.id, error.code) for error in again.of(Error)] == [
            ("once", "outcome_unknown")
        ]
        assert [ack.id for acked in again.of(Acked) for ack in acked.acks] == ["another"]

        await again.act(message)
        ben.send(Sync(1, 0, to_hex(vector_digest({}))))
        await until(lambda: ben.of(Synced))
        assert [(c.conversation, c.head) for c in ben.of(Synced)[0].conversations] == [(GROUP, 2)]

    tell(story)


def test_the_sweep_finds_within_its_time_what_nothing_else_told_of() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        publisher = pair.backbones[A]._crossing._publisher  # type: ignore[union-attr]
        publisher.frame = lambda frame, workers: None  # type: ignore[method-assign]
        await ann.say("its worker dies before it publishes")
        await until(lambda: ben.notices(), 62.0)

    tell(story, sweep_seconds=60.0)


@pytest.mark.parametrize("failures", [0, 1])
def test_a_head_that_no_cached_tier_has_yet_is_found_by_who_is_told_of_it(failures: int) -> None:
    """Its worker died between the commit and the cached tier, or is slow there; whoever finds it
    may not reach that tier either.
    """

    async def story(pair: Pair) -> None:
        await asyncio.sleep(OPEN_SECONDS)
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        held = {GROUP: Seq(1)}
        ben.send(Sync(1, vector=held))
        await until(lambda: ben.of(Synced))
        pair.backbones[A]._crossing._cached.append = _late  # type: ignore[union-attr,method-assign,assignment]
        ann.send(Send(ClientMessageId("stored"), "body", GROUP))
        await asyncio.sleep(1.0)
        (row,) = await pair.hot.rows(pair.backbones[A].registry.keys())
        assert row.head == 2
        tier = pair.backbones[B]._crossing._cached  # type: ignore[union-attr]
        append, answers = tier.append, [_failing] * failures

        async def appended(*writes: object) -> object:
            return await (answers.pop() if answers else append)(*writes)  # type: ignore[arg-type]

        tier.append = appended  # type: ignore[method-assign,assignment]
        pair.hub.cut(B)
        pair.hub.mend(B)
        await until(lambda: ben.notices(), REPAIRED_SECONDS)
        ben.send(Sync(2, cursor=1, vector=held))
        await until(lambda: len(ben.of(Synced)) == 2)
        answer = ben.of(Synced)[1]
        assert isinstance(answer, Synced)
        assert [(c.conversation, c.head) for c in answer.conversations] == [(GROUP, 2)]

    tell(story)
