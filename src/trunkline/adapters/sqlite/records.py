"""What a journal row holds: absolute values only, so that a replay changes nothing twice."""

from hashlib import blake2b
from typing import Final

import msgspec

from trunkline.core import rows
from trunkline.errors import DataDamaged
from trunkline.model import (
    ConversationId,
    ConversationKey,
    EndpointId,
    Member,
    Seq,
    StoredEntry,
    UserId,
)

CHECKSUM_BYTES: Final = 16


class MemberRow(rows.MemberColumns, frozen=True, gc=False, array_like=True):
    """A member's row, and the version of the user's conversation that came with the change."""

    version: int
    mac: bytes = b""


class Written(msgspec.Struct, array_like=True, tag="w", frozen=True, gc=False):
    """What a commit wrote of one conversation.

    Without `row` the conversation changed only as its last entry says: head, countable and
    digest stand there. `members`: rows that changed; then the read markers of those who sent
    move, as `core.appending.move_markers` says.
    """

    key: ConversationKey
    id: ConversationId
    entries: tuple[StoredEntry, ...]
    row: rows.ConversationRow | None
    members: tuple[MemberRow, ...]


class OffsetSet(msgspec.Struct, array_like=True, tag="o", frozen=True, gc=False):
    """An endpoint's read offset; the highest counts."""

    user: UserId
    endpoint: EndpointId
    key: ConversationKey
    seq: Seq


class Archived(msgspec.Struct, array_like=True, tag="a", frozen=True, gc=False):
    """Entries up to here were read back from the cold tier; the highest counts."""

    key: ConversationKey
    up_to_inclusive: Seq


class Trimmed(msgspec.Struct, array_like=True, tag="t", frozen=True, gc=False):
    """Entries up to here are gone from the hot tier; the highest counts."""

    key: ConversationKey
    up_to_inclusive: Seq


Record = Written | OffsetSet | Archived | Trimmed


class Commit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One journal row. `version`: the highest version given out, this commit included."""

    time_ms: int
    version: int
    records: tuple[Record, ...]

    def weight(self) -> int:
        """How many entries and other records it holds: what the bounds count."""
        return sum(len(r.entries) or 1 if isinstance(r, Written) else 1 for r in self.records)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Commit).decode


def pack(journal_id: int, commit: Commit) -> bytes:
    """The body of a journal row: MessagePack, then the checksum that binds it to its place."""
    data = _encode(commit)
    return data + _checksum(journal_id, data)


def unpack(journal_id: int, body: bytes) -> Commit:
    """The inverse of `pack`; raises `DataDamaged` if a byte is not what was written."""
    data = memoryview(body)[:-CHECKSUM_BYTES]
    if _checksum(journal_id, data) != body[-CHECKSUM_BYTES:]:
        raise DataDamaged(f"journal.db: row {journal_id} does not have its checksum.")
    return _decode(data)


def _checksum(journal_id: int, data: bytes | memoryview) -> bytes:
    """BLAKE2b-128 (RFC 7693), keyed with the row's id."""
    return blake2b(data, digest_size=CHECKSUM_BYTES, key=journal_id.to_bytes(8, "big")).digest()


def member_row(member: Member, version: int) -> MemberRow:
    """The row of a member."""
    return MemberRow(
        member.user, member.visible_from, rows.digest_bytes(member.digest_before),
        member.countable_before, member.left_at, rows.digest_bytes(member.left_digest),
        member.left_countable, member.marker, member.marker_countable, version, member.mac,
    )  # fmt: skip
