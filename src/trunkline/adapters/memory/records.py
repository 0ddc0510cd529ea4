"""What the memory stores write to their journals, as MessagePack.

Rows are written with digests as 16 bytes: MessagePack knows no integer of 128 bits.
Opened entries are never among them (I12).
"""

from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.appending import ConversationWrite
from trunkline.core.rows import (
    ConversationRow,
    MemberRow,
    conversation_of,
    conversation_row,
    member_of,
    member_row,
)
from trunkline.model import (
    ColdMetadata,
    ConversationKey,
    MarkerMove,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
)


class WriteRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `ConversationWrite` without its opened entries."""

    conversation: ConversationRow
    entries: list[StoredEntry]
    members: list[MemberRow]

    @classmethod
    def of(cls, write: ConversationWrite) -> "WriteRow":
        """The row of what a batch does to one conversation."""
        return cls(
            conversation_row(write.conversation),
            write.entries,
            [member_row(member) for member in write.members.values()],
        )


class Appended(msgspec.Struct, frozen=True, tag="append"):
    """A batch was appended, at a time in milliseconds since 1970."""

    writes: list[WriteRow]
    time_ms: int


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
            ColdMetadata(
                conversation_of(conversation), tuple(member_of(row, row.mac) for row in members)
            )
            for conversation, members in self.metadata
        ]


COLD_DECODER: Final = msgspec.msgpack.Decoder(ColdRecord)
