"""What the memory stores write to their journals, as MessagePack.

Rows are written with digests as 16 bytes: MessagePack knows no integer of 128 bits.
Opened entries are never among them (I12).
"""

from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.appending import ConversationWrite
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    MarkerMove,
    Member,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
    UserId,
)


class ConversationRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `Conversation` as it is written."""

    key: ConversationKey
    id: ConversationId
    kind: ConversationKind
    wrapped_key: bytes
    head: Seq
    countable: int
    digest: bytes
    archived_up_to: Seq
    trimmed_up_to: Seq
    membership_version: int
    member_count: int
    sealed_name: bytes

    @classmethod
    def of(cls, conversation: Conversation) -> "ConversationRow":
        """The row of a conversation."""
        c = conversation
        return cls(
            c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, digests.to_bytes(c.digest),
            c.archived_up_to, c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
        )  # fmt: skip

    def value(self) -> Conversation:
        """The conversation of the row."""
        return Conversation(
            self.key, self.id, self.kind, self.wrapped_key, self.head, self.countable,
            digests.from_bytes(self.digest), self.archived_up_to, self.trimmed_up_to,
            self.membership_version, self.member_count, self.sealed_name,
        )  # fmt: skip


class MemberRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `Member` as it is written."""

    user: UserId
    visible_from: Seq
    digest_before: bytes
    countable_before: int
    left_at: Seq
    left_digest: bytes
    left_countable: int
    marker: Seq
    marker_countable: int

    @classmethod
    def of(cls, member: Member) -> "MemberRow":
        """The row of a member."""
        m = member
        return cls(
            m.user, m.visible_from, digests.to_bytes(m.digest_before), m.countable_before,
            m.left_at, digests.to_bytes(m.left_digest), m.left_countable, m.marker,
            m.marker_countable,
        )  # fmt: skip

    def value(self) -> Member:
        """The member of the row."""
        return Member(
            self.user, self.visible_from, digests.from_bytes(self.digest_before),
            self.countable_before, self.left_at, digests.from_bytes(self.left_digest),
            self.left_countable, self.marker, self.marker_countable,
        )  # fmt: skip


class WriteRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `ConversationWrite` without its opened entries."""

    conversation: ConversationRow
    entries: list[StoredEntry]
    members: list[MemberRow]

    @classmethod
    def of(cls, write: ConversationWrite) -> "WriteRow":
        """The row of what a batch does to one conversation."""
        return cls(
            ConversationRow.of(write.conversation),
            write.entries,
            [MemberRow.of(member) for member in write.members.values()],
        )


class Appended(msgspec.Struct, frozen=True, tag="append"):
    """A batch was appended."""

    writes: list[WriteRow]


class Recorded(msgspec.Struct, frozen=True, tag="record"):
    """Markers and offsets moved."""

    markers: list[MarkerMove]
    offsets: list[OffsetMove]


class Trimmed(msgspec.Struct, frozen=True, tag="trim"):
    """Entries 1..up_to were dropped."""

    key: ConversationKey
    up_to: Seq


class Archived(msgspec.Struct, frozen=True, tag="archive"):
    """Entries 1..up_to are in the cold tier."""

    key: ConversationKey
    up_to: Seq


class Leased(msgspec.Struct, frozen=True, tag="lease"):
    """Lease tokens up to `token` were given out: none is given out again after a restart."""

    token: int


HotRecord = Appended | Recorded | Trimmed | Archived | Leased
HOT_DECODER: Final[msgspec.msgpack.Decoder[HotRecord]] = msgspec.msgpack.Decoder(HotRecord)


class SegmentRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `Segment` as it is written."""

    key: ConversationKey
    first: Seq
    last: Seq
    digest: bytes
    sealed: bytes

    @classmethod
    def of(cls, segment: Segment) -> "SegmentRow":
        """The row of a segment."""
        s = segment
        return cls(s.key, s.first, s.last, digests.to_bytes(s.digest), s.sealed)

    def value(self) -> Segment:
        """The segment of the row."""
        digest = digests.from_bytes(self.digest)
        return Segment(self.key, self.first, self.last, digest, self.sealed)


class ColdRecord(msgspec.Struct, frozen=True):
    """Segments and metadata that were put into the cold tier."""

    segments: list[SegmentRow]
    metadata: list[tuple[ConversationRow, list[MemberRow]]]

    def values(self) -> tuple[list[Segment], list[ColdMetadata]]:
        """The segments and metadata of the record."""
        return [row.value() for row in self.segments], [
            ColdMetadata(conversation.value(), tuple(member.value() for member in members))
            for conversation, members in self.metadata
        ]


COLD_DECODER: Final = msgspec.msgpack.Decoder(ColdRecord)
