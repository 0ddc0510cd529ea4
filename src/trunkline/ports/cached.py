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
    """A copy that may vanish at any moment: its loss costs time, never data.

    It also knows which workers watch a conversation, that is, have to be told what is
    committed there. Every method but `append` swallows a tier that does not answer.
    """

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """Takes over what a batch committed; returns which OTHER workers watch each conversation.

        Ignores what is at or below the cached head, appends head+1; after a gap drops
        the entries and only raises the head. So a write without entries raises a head that
        is behind, and asks who watches. Conversations that nobody else watches are absent.
        Under the `stamp` of a cache generation a head that is taken over, or found equal,
        counts for `CachedHeads`.
        Raises `TierUnavailable` when the tier did not answer within its bound.
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
        """From when it returns, this worker is named by every append to these conversations.

        Thousands of keys are one call.
        """
        ...

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """This worker (None), or one that is dead, is named no more."""
        ...
