"""What a member may see of a conversation, and the exact digest and unread count of it."""

import msgspec

from trunkline.core.digest import subtract
from trunkline.errors import AheadOfHead, InvalidRange
from trunkline.model import Conversation, Digest, Member, Seq


class View(msgspec.Struct, frozen=True, gc=False):
    """A member's range first..last of a conversation, with its exact digest and unread.

    All that a member is told of the conversation as it is stands here: `sealed_name` is its
    name, empty where it has none, or where the view has ended and it may bear another by now.
    """

    first: Seq
    last: Seq
    digest: Digest
    unread: int
    marker: Seq
    left: bool
    sealed_name: bytes


def last_visible(conversation: Conversation, member: Member) -> Seq:
    """Where the member's view ends: the head, or the entry that ended the membership."""
    return member.left_at or conversation.head


def view_of(conversation: Conversation, member: Member) -> View:
    """The member's view (I1, I13): visible_from..head, or ..left_at once gone."""
    if member.left_at:
        last, digest, countable = member.left_at, member.left_digest, member.left_countable
    else:
        last, digest, countable = conversation.head, conversation.digest, conversation.countable
    return View(
        member.visible_from,
        last,
        subtract(digest, member.digest_before),
        countable - member.marker_countable,
        member.marker,
        bool(member.left_at),
        b"" if member.left_at else conversation.sealed_name,
    )


def clip(view: View, after: Seq, up_to_inclusive: Seq) -> tuple[Seq, Seq]:
    """The asked range as (after, up_to_inclusive); 0 as end means the end of the view.

    Raises `InvalidRange` where it reaches out of the view: a pull is answered whole or
    refused (I8).
    """
    up_to = up_to_inclusive or view.last
    if after < view.first - 1 or up_to > view.last or after > up_to:
        raise InvalidRange(
            f"The view is {view.first} to {view.last}: `after` is at least {view.first - 1}, "
            f"`up_to` at most {view.last}."
        )
    return after, up_to


def check_position(view: View, seq: Seq) -> None:
    """Refuses an offset or marker past the view (I9)."""
    if not 0 <= seq <= view.last:
        raise AheadOfHead(f"The view ends at {view.last}.")
