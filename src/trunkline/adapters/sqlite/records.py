"""What a journal row holds: absolute values only, so that a replay changes nothing twice."""

from hashlib import blake2b
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.errors import DataDamaged
from trunkline.model import (
    NO_DIGEST,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    EndpointId,
    Member,
    Seq,
    StoredEntry,
    UserId,
)

CHECKSUM_BYTES: Final = 16


class ConversationRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`model.Conversation` with its digest as bytes: MessagePack has no 128-bit integers."""

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


class MemberRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`model.Member`, and the version of the user's conversation that came with the change."""

    user: UserId
    visible_from: Seq
    digest_before: bytes
    countable_before: int
    left_at: Seq
    left_digest: bytes
    left_countable: int
    marker: Seq
    marker_countable: int
    version: int


class Written(msgspec.Struct, array_like=True, tag="w", frozen=True, gc=False):
    """What a commit wrote of one conversation.

    Without `row` the conversation changed only as its last entry says: head, countable and
    digest stand there. `members`: rows that changed; then the read markers of those who sent
    move, as `core.appending.move_markers` says.
    """

    key: ConversationKey
    id: ConversationId
    entries: tuple[StoredEntry, ...]
    row: ConversationRow | None
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


def conversation_row(conversation: Conversation) -> ConversationRow:
    """The row of a conversation."""
    return ConversationRow(
        conversation.key,
        conversation.id,
        conversation.kind,
        conversation.wrapped_key,
        conversation.head,
        conversation.countable,
        digest_bytes(conversation.digest),
        conversation.archived_up_to,
        conversation.trimmed_up_to,
        conversation.membership_version,
        conversation.member_count,
        conversation.sealed_name,
    )


def conversation_of(row: ConversationRow) -> Conversation:
    """The inverse of `conversation_row`."""
    return Conversation(
        row.key,
        row.id,
        row.kind,
        row.wrapped_key,
        row.head,
        row.countable,
        digests.from_bytes(row.digest),
        row.archived_up_to,
        row.trimmed_up_to,
        row.membership_version,
        row.member_count,
        row.sealed_name,
    )


def member_row(member: Member, version: int) -> MemberRow:
    """The row of a member."""
    return MemberRow(
        member.user,
        member.visible_from,
        digest_bytes(member.digest_before),
        member.countable_before,
        member.left_at,
        digest_bytes(member.left_digest),
        member.left_countable,
        member.marker,
        member.marker_countable,
        version,
    )


def member_of(row: MemberRow) -> Member:
    """The inverse of `member_row`."""
    return Member(
        row.user,
        row.visible_from,
        digests.from_bytes(row.digest_before),
        row.countable_before,
        row.left_at,
        digests.from_bytes(row.left_digest),
        row.left_countable,
        row.marker,
        row.marker_countable,
    )


def digest_bytes(digest: Digest) -> bytes:
    """16 bytes, or none for the digest of nothing."""
    return digests.to_bytes(digest) if digest != NO_DIGEST else b""
