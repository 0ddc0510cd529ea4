"""How the tiers' parts are joined, and what may leave each of them (DESIGN section 5)."""

from collections.abc import Sequence
from typing import Protocol

from trunkline.model import Conversation, ConversationKind, Seq


class Numbered(Protocol):
    """Anything with a seq."""

    @property
    def seq(self) -> Seq:
        """Its position."""
        ...


def missing_before(part: Sequence[Numbered], up_to_inclusive: Seq) -> Seq:
    """Up to where the next lower tier must still answer, given a tier's part of a range.

    `part` is contiguous and ends at `up_to_inclusive`, or is empty.
    """
    return Seq(part[0].seq - 1) if part else up_to_inclusive


def is_whole(entries: Sequence[Numbered], after: Seq, up_to_inclusive: Seq) -> bool:
    """Whether entries are exactly after+1..up_to_inclusive, each once (I1, I8)."""
    return len(entries) == up_to_inclusive - after and all(
        entry.seq == seq for seq, entry in enumerate(entries, after + 1)
    )


def trim_up_to(conversation: Conversation, *, newest_single: int, newest_group: int) -> Seq:
    """The seq up to which the hot tier may forget: archived, and not among the newest N (I10)."""
    single = conversation.kind is ConversationKind.SINGLE
    newest = newest_single if single else newest_group
    return Seq(max(0, min(conversation.archived_up_to, conversation.head - newest)))
