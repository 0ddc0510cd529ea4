"""A member's view: its range, what may be asked of it, and where offsets may stand (I9, I13)."""

from __future__ import annotations

import msgspec
import pytest
from core_strategies import conversation
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.views import check_position, clip, view_of
from trunkline.errors import AheadOfHead, InvalidRange
from trunkline.model import Digest, Member, Seq, UserId

ROW = msgspec.structs.replace(
    conversation(b""), head=Seq(20), countable=15, digest=Digest(5), member_count=2
)
PRESENT = Member(UserId("ann"), Seq(6), Digest(2**128 - 3), 4, marker=Seq(9), marker_countable=7)
GONE = msgspec.structs.replace(PRESENT, left_at=Seq(12), left_digest=Digest(1), left_countable=10)


def test_a_present_members_view_reaches_to_the_head() -> None:
    view = view_of(ROW, PRESENT)
    assert (view.first, view.last, view.left) == (6, 20, False)
    assert (view.unread, view.marker) == (8, 9)
    assert view.digest == 8


def test_the_view_of_who_left_ends_where_they_left() -> None:
    view = view_of(ROW, GONE)
    assert (view.first, view.last, view.left) == (6, 12, True)
    assert (view.unread, view.digest) == (3, 4)


@given(st.integers(-5, 30), st.integers(-5, 30), st.sampled_from([PRESENT, GONE]))
def test_a_range_is_answered_whole_or_refused(after: int, up_to: int, member: Member) -> None:
    """I8: whatever is let through lies in the view, and is what was asked."""
    view = view_of(ROW, member)
    end = up_to or view.last
    if view.first - 1 <= after <= end <= view.last:
        assert clip(view, Seq(after), Seq(up_to)) == (after, end)
    else:
        with pytest.raises(InvalidRange):
            clip(view, Seq(after), Seq(up_to))


@pytest.mark.parametrize("seq", [0, 1, 12, 20])
def test_a_position_within_the_view_is_taken(seq: int) -> None:
    check_position(view_of(ROW, PRESENT), Seq(seq))


@pytest.mark.parametrize(("member", "seq"), [(PRESENT, 21), (GONE, 13), (PRESENT, -1)])
def test_a_position_past_the_view_is_refused(member: Member, seq: int) -> None:
    with pytest.raises(AheadOfHead):
        check_position(view_of(ROW, member), Seq(seq))
