"""HeadChanges: which heads moved since a position, of a store that nobody else writes to.

A port of its own, since a store that others write to, too, cannot know.
"""

from collections.abc import Sequence
from typing import Protocol

from trunkline.model import ConversationId, Seq


class HeadChanges(Protocol):
    """The order in which the newest heads were committed in this process."""

    @property
    def position(self) -> int:
        """That of the last commit that `HotStore.views` shows."""
        ...

    def since(self, position: int) -> Sequence[tuple[ConversationId, Seq]] | None:
        """The conversations that moved behind a position, with their heads now.

        None if what is remembered does not reach back so far.
        """
        ...
