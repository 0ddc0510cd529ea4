"""Inspection: everything that the stores hold, as it stands there, for the audit and the export.

Nothing is repaired, filtered or joined on the way. What cannot be read raises `DataDamaged`
with the place in its detail; the next question is answered all the same where it can be.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from trunkline.model import (
    ClientMessageId,
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    Member,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
    UserId,
)


class StoreFault(msgspec.Struct, frozen=True, gc=False):
    """Something wrong below the records. `where`: the file or table, `what`: a sentence."""

    where: str
    what: str


class KnownId(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An idempotency row: this client message id of this sender became entry `seq` (I6)."""

    sender: UserId
    client_message_id: ClientMessageId
    seq: Seq


class Listing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The line of a user's conversation list that names this conversation."""

    user: UserId
    conversation: ConversationId
    version: int


class HotInspection(Protocol):
    """What the hot store holds. Nobody writes while it is inspected."""

    async def faults(self) -> Sequence[StoreFault]:
        """Checks the store below its records: files, pages, indexes, checksums, counters."""
        ...

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key that a record of any kind names, once each, in key order."""
        ...

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        """The conversation's row."""
        ...

    async def members(self, key: ConversationKey) -> Sequence[Member]:
        """All members, present and gone."""
        ...

    def entries(self, key: ConversationKey) -> AsyncIterator[Sequence[StoredEntry]]:
        """All entries that are here, by seq, in runs of bounded size."""
        ...

    def known_ids(self, key: ConversationKey) -> AsyncIterator[Sequence[KnownId]]:
        """All idempotency rows, in runs of bounded size."""
        ...

    async def listings(self, key: ConversationKey) -> Sequence[Listing]:
        """Who has the conversation in the conversation list."""
        ...

    async def offsets(self, key: ConversationKey) -> Sequence[OffsetMove]:
        """The read offsets of all endpoints."""
        ...


class ColdInspection(Protocol):
    """What the cold store holds."""

    async def faults(self) -> Sequence[StoreFault]:
        """Checks the store below its records."""
        ...

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key that a segment or metadata names, once each, in key order."""
        ...

    def segments(self, key: ConversationKey) -> AsyncIterator[Segment]:
        """All segments, by first and last."""
        ...

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata."""
        ...
