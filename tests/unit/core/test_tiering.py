"""Joining the tiers' parts, and what may leave the hot tier (I1, I8, I10)."""

from __future__ import annotations

import msgspec
import pytest
from core_strategies import conversation
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.tiering import is_whole, missing_before, trim_up_to
from trunkline.model import ConversationKind, Entry, Seq, UserId


def entries(*seqs: int) -> list[Entry]:
    return [Entry(Seq(seq), UserId("ann"), 0, "") for seq in seqs]


@given(st.integers(0, 100), st.integers(0, 20), st.data())
def test_parts_of_any_tiers_join_to_the_whole_range(
    after: int, count: int, data: st.DataObject
) -> None:
    """Each level is asked for what the one above lacked at the front."""
    up_to = after + count
    answer: list[Entry] = []
    wanted = Seq(up_to)
    for _level in range(3):
        held_from = data.draw(st.integers(after + 1, wanted + 1))
        part = entries(*range(held_from, wanted + 1))
        answer = part + answer
        wanted = missing_before(part, wanted)
    answer = entries(*range(after + 1, wanted + 1)) + answer
    assert is_whole(answer, Seq(after), Seq(up_to))


@pytest.mark.parametrize(
    "found", [[], [1, 2], [2, 3], [1, 3], [1, 2, 2], [1, 3, 2], [1, 2, 3, 4], [0, 1, 2]]
)
def test_a_hole_a_double_or_a_short_answer_is_not_whole(found: list[int]) -> None:
    assert not is_whole(entries(*found), Seq(0), Seq(3))


def test_an_empty_range_is_whole_when_empty() -> None:
    assert is_whole([], Seq(5), Seq(5))
    assert not is_whole(entries(6), Seq(5), Seq(5))


@given(
    st.integers(0, 200), st.integers(0, 200), st.integers(1, 50), st.integers(1, 50),
    st.sampled_from(ConversationKind),
)  # fmt: skip
def test_only_what_is_archived_and_not_among_the_newest_may_go(
    head: int, archived: int, newest_single: int, newest_group: int, kind: ConversationKind
) -> None:
    row = msgspec.structs.replace(
        conversation(), head=Seq(head), archived_up_to=Seq(min(archived, head)), kind=kind
    )
    up_to = trim_up_to(row, newest_single=newest_single, newest_group=newest_group)
    newest = newest_single if kind is ConversationKind.SINGLE else newest_group
    assert 0 <= up_to <= row.archived_up_to
    assert up_to == 0 or head - up_to >= newest
    assert up_to == row.archived_up_to or head - up_to <= newest
