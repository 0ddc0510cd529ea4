"""CachedHeads: the heads of many conversations at once, for the comparison of a sync."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.model import ConversationKey, Seq


class CachedHeads(Protocol):
    """The heads that `CachedTier.append` left under a stamp.

    Attributes:
        server: names the server that calls go to, or went to last; another one after a restart,
            a wipe or a promotion. Empty before the first.
        answers: whether it answers, as far as is known.
        clocks: its servers' own clocks in seconds, by their names, each as of the end of its last
            answer to whatever was asked. This worker may have stood still without a clock of its
            own that shows it; theirs went on.
    """

    @property
    def server(self) -> bytes:
        """See above."""
        ...

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """See above."""
        ...

    @property
    def answers(self) -> bool:
        """See above."""
        ...

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        """The heads in the keys' order; None where none stands under this stamp.

        Thousands of keys are one call, and one round trip a node. Never raises: a tier that
        does not answer holds none.
        """
        ...
