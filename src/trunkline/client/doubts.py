"""Which copies may hold what the store has lost, until each was compared with it."""

from collections.abc import Iterable

from trunkline.errors import EntriesLost
from trunkline.model import ConversationId, Seq


class Doubts:
    """Begun when the store shows another life; ended by a sync that lists everything.

    Attributes:
        ahead: copies that hold more than was listed: the server must be asked about them.
        can_ask: whether the server knows which store it has, and so can be asked.
    """

    def __init__(self) -> None:
        self.ahead: dict[ConversationId, None] = {}
        self.can_ask = False
        self._unlisted: dict[ConversationId, None] = {}
        self._covering = False
        self._begun = False
        self._asked = False

    @property
    def are_open(self) -> bool:
        """Whether any copy is still to be compared."""
        return self._begun or bool(self.ahead)

    @property
    def want_all(self) -> bool:
        """Whether a sync from the very start is still to be asked for."""
        return self._begun and not self._asked

    @property
    def cover_all(self) -> bool:
        """Whether all copies are being compared, not just some that were found ahead."""
        return self._covering and self.are_open

    def begin(self, conversations: Iterable[ConversationId]) -> None:
        """The next sync is to list all; these are the copies that it is to list."""
        self._covering, self._begun, self._asked = True, True, False
        self._unlisted = dict.fromkeys(conversations)

    def sync_begins(self) -> None:
        """A sync from the very start is asked for: what it does not list is not there."""
        self._asked = self._begun

    def listed(self, conversation: ConversationId, head: Seq, last: Seq) -> bool:
        """A conversation with this head was listed, of which the copy holds up to `last`.

        Returns whether the two can be compared now; else the copy is ahead.
        """
        self._unlisted.pop(conversation, None)
        if head >= last or not self.can_ask:
            self.ahead.pop(conversation, None)
            return True
        # A push may have been faster than the list; the server then says so.
        self._covering = self.cover_all
        self.ahead[conversation] = None
        return False

    def sync_ended(self) -> list[ConversationId]:
        """The copies that a sync from the very start did not list."""
        if not self._asked:
            return []
        self._begun = self._asked = False
        unlisted = list(self._unlisted)
        self._unlisted = {}
        return unlisted


def lost_whole(conversation: ConversationId) -> EntriesLost:
    """Says that a conversation is in the store no more."""
    return EntriesLost(
        f"Conversation {conversation!r} is not in the store any more: all that this endpoint "
        "holds of it is set apart.",
        conversation=conversation,
    )
