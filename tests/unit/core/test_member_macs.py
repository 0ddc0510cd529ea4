"""Members' rows: every field that a view depends on is held by the MAC."""

from __future__ import annotations

import msgspec
import pytest

from trunkline.core.member_macs import MemberMacs
from trunkline.model import ConversationKey, Digest, Member, Seq, UserId

HERE = ConversationKey(7)
MACS = MemberMacs(b"k" * 32)
MEMBER = MACS.seal(
    HERE, Member(UserId("ann"), Seq(3), Digest(5), 2, Seq(9), Digest(8), 6, Seq(4), 3)
)
MARKER = {"marker", "marker_countable"}
CHANGES = {
    "user": UserId("anna"), "visible_from": Seq(1), "digest_before": Digest(0),
    "countable_before": 0, "left_at": Seq(0), "left_digest": Digest(0), "left_countable": 0,
    "mac": b"",
}  # fmt: skip


def test_a_row_as_it_was_written_holds_also_after_its_marker_moved() -> None:
    assert MACS.hold(HERE, MEMBER)
    assert MACS.hold(HERE, MEMBER.marked(Seq(9), 6))


@pytest.mark.parametrize("field", sorted(set(Member.__struct_fields__) - MARKER))
def test_a_row_with_another_value_does_not_hold(field: str) -> None:
    """Every field but the marker's: one that is added must be covered, too."""
    assert not MACS.hold(HERE, msgspec.structs.replace(MEMBER, **{field: CHANGES[field]}))


def test_a_row_holds_in_no_other_conversation_and_under_no_other_key() -> None:
    assert not MACS.hold(ConversationKey(8), MEMBER)
    assert not MemberMacs(b"l" * 32).hold(HERE, MEMBER)


def test_nothing_is_checked_while_a_store_without_macs_is_taken_over() -> None:
    assert MemberMacs(b"k" * 32, required=False).hold(HERE, Member(UserId("eve"), Seq(1)))
