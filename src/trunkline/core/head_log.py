"""The order in which conversations moved, newest last: what changed since a position."""

from trunkline.model import ConversationId, Seq


class HeadLog:
    """A `ports.head_changes.HeadChanges`, fed by the one who commits.

    Attributes:
        position: rises with every head that is added.
    """

    def __init__(self, *, most: int) -> None:
        """`most`: so many conversations are remembered, those that moved last."""
        self.position = 0
        self._most = most
        self._forgotten = 0
        self._heads: dict[ConversationId, tuple[int, Seq]] = {}

    def add(self, conversation: ConversationId, head: Seq) -> None:
        """The conversation has a new head."""
        heads = self._heads
        self.position = position = self.position + 1
        heads.pop(conversation, None)
        heads[conversation] = (position, head)
        if len(heads) > self._most:
            self._forgotten, _ = heads.pop(next(iter(heads)))

    def since(self, position: int) -> list[tuple[ConversationId, Seq]] | None:
        """What moved behind a position, with the heads now; None: not remembered."""
        if position < self._forgotten:
            return None
        found: list[tuple[ConversationId, Seq]] = []
        for conversation, (moved, head) in reversed(self._heads.items()):
            if moved <= position:
                break
            found.append((conversation, head))
        return found
