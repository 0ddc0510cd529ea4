"""ColdStore: everything, in sealed segments; only cold traffic (DESIGN section 5)."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq


class ColdStore(Protocol):
    """Raises `TierUnavailable` (retryable) when it does not answer."""

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """Stores segments and conversation metadata; on disk when it returns.

        A segment of the same key, first and last replaces the one before.
        """
        ...

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[Segment]:
        """Segments that together hold what is here of after+1..up_to_inclusive, oldest first.

        Segments may overlap one another and reach beyond the range.
        """
        ...

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata as of its last archive."""
        ...

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every conversation that has a segment, in key order."""
        ...
