"""CachedTier: heads, newest entries and read offsets in memory (DESIGN section 5)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from trunkline.core.appending import ConversationWrite
from trunkline.model import (
    ConversationKey,
    EndpointId,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
    WorkerId,
)


class CachedTier(Protocol):
    """A copy that may vanish at any moment: its loss costs time, never data."""

    async def append(
        self, writes: Sequence[ConversationWrite]
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """Takes over what a batch committed; returns which other workers watch what it wrote.

        Ignores what is at or below the cached head, appends head+1; after a gap drops
        the entries and only raises the head. A conversation that no other worker watches
        is absent from the answer. Raises `TierUnavailable` when the tier did not answer
        within its bound; some of the writes may have been taken over then.
        """
        ...

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of the range that is cached: contiguous, up to its end; may be empty."""
        ...

    async def confirm(
        self, moves: Sequence[OffsetMove], members: Mapping[ConversationKey, int]
    ) -> None:
        """Raises read offsets; `members` is the count of present members a conversation.

        Once all members passed a position, what lies before it is evicted.
        """
        ...

    async def offsets(
        self, user: UserId, endpoint: EndpointId
    ) -> Mapping[ConversationKey, Seq] | None:
        """The endpoint's read offsets, or None if they are not cached."""
        ...

    async def load_offsets(
        self, user: UserId, endpoint: EndpointId, offsets: Mapping[ConversationKey, Seq]
    ) -> None:
        """Fills in an endpoint's offsets from the hot tier."""
        ...

    async def evict_idle(self) -> int:
        """Drops what was idle past its time; returns the number of entries dropped."""
        ...

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """This worker is pushed these conversations: appends of others name it from now on."""
        ...

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """This worker, or one that died, is no longer pushed these conversations."""
        ...
