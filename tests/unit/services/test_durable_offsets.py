"""Read offsets that wait to be written: bounded, and none is tried for ever."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trunkline.core.lanes import ONE_LANE
from trunkline.errors import DataDamaged, ShardMoved, StorageUnavailable, TrunklineError
from trunkline.model import ConversationKey, EndpointId, MarkerMove, OffsetMove, Seq, UserId
from trunkline.services.durable_offsets import DurableOffsets
from trunkline.services.metrics import Metrics

MOVED = UserId("moved")


class RecordingHot:
    """Stores what is not of the moved user, then says so; or fails as it is told to."""

    def __init__(self) -> None:
        self.fails: TrunklineError | None = None
        self.rows = 0
        self.stored: dict[UserId, Seq] = {}

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        if self.fails is not None:
            raise self.fails
        self.rows += len(offsets)
        self.stored |= {move.user: move.seq for move in offsets if move.user != MOVED}
        if any(move.user == MOVED for move in offsets):
            raise ShardMoved


class Offsets:
    def __init__(self) -> None:
        self.hot = RecordingHot()
        self.metrics = Metrics()
        self.durable = DurableOffsets(
            self.hot,
            ONE_LANE,
            self.metrics,
            interval_seconds=1.0,
            most=20_000,  # type: ignore[arg-type]
        )

    def add(self, *users: str, seq: int = 1) -> None:
        self.durable.add(
            OffsetMove(ConversationKey(1), UserId(user), EndpointId("e"), Seq(seq))
            for user in users
        )

    @property
    def dropped(self) -> float:
        return self.metrics.registry.get_sample_value("trunkline_offsets_dropped_total") or 0.0


@pytest.fixture
def offsets() -> Offsets:
    return Offsets()


async def test_a_shard_that_was_taken_over_makes_no_other_offset_wait(offsets: Offsets) -> None:
    offsets.add(MOVED)
    for second in range(100):
        offsets.add(*(f"{second} {number}" for number in range(10)))
        await offsets.durable.flush(0)
    assert len(offsets.hot.stored) == 1_000
    assert offsets.hot.rows < 1_100


async def test_what_waits_for_a_database_is_bounded_and_goes_in_portions(offsets: Offsets) -> None:
    offsets.hot.fails = StorageUnavailable()
    offsets.add(*(str(number) for number in range(20_003)))
    await offsets.durable.flush(0)
    assert offsets.dropped == 3
    offsets.add("7", seq=2)
    offsets.hot.fails = None
    await offsets.durable.flush(0)
    assert len(offsets.hot.stored) == offsets.hot.rows == 20_000
    assert offsets.hot.stored[UserId("7")] == 2


async def test_what_a_store_will_never_take_is_dropped(offsets: Offsets) -> None:
    offsets.hot.fails = DataDamaged()
    offsets.add("ann")
    await offsets.durable.flush(0)
    offsets.hot.fails = None
    await offsets.durable.flush(0)
    assert offsets.dropped == 1
    assert offsets.hot.rows == 0
