"""What moved since a position is told whole, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.head_log import HeadLog
from trunkline.model import ConversationId, Seq


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_whatever_moved_behind_a_position_is_named_with_its_head(
    moves: list[int], position: int
) -> None:
    log, heads, moved_at = HeadLog(most=5), dict.fromkeys(range(10), 0), dict.fromkeys(range(10), 0)
    for number, key in enumerate(moves, 1):
        heads[key] += 1
        moved_at[key] = number
        log.add(ConversationId(str(key)), Seq(heads[key]))
    assert log.position == len(moves)
    found = log.since(position)
    moved = {key: heads[key] for key, at in moved_at.items() if at > position}
    if found is None:
        assert len(heads) - list(moved_at.values()).count(0) > 5
        assert len(moved) > 5 or position < sorted(moved_at.values())[-6]
    else:
        assert {int(id_): head for id_, head in found} == moved
        assert len(found) == len(moved)
