"""A conversation's metadata as its cell holds it: MessagePack, digests as 16 bytes."""

import msgspec

from trunkline.core import digest as digests
from trunkline.errors import DataDamaged
from trunkline.model import (
    NO_DIGEST,
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    Member,
    Seq,
    UserId,
)


class _ConversationRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
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


class _MemberRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    user: UserId
    visible_from: Seq
    digest_before: bytes
    countable_before: int
    left_at: Seq
    left_digest: bytes
    left_countable: int
    marker: Seq
    marker_countable: int


class _MetadataRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    conversation: _ConversationRecord
    members: list[_MemberRecord]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_MetadataRecord).decode


def pack_metadata(metadata: ColdMetadata) -> bytes:
    """The cell of a conversation's metadata."""
    c = metadata.conversation
    conversation = _ConversationRecord(
        c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, _pack(c.digest),
        c.archived_up_to, c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    )  # fmt: skip
    members = [
        _MemberRecord(
            m.user, m.visible_from, _pack(m.digest_before), m.countable_before, m.left_at,
            _pack(m.left_digest), m.left_countable, m.marker, m.marker_countable,
        )
        for m in metadata.members
    ]  # fmt: skip
    return _encode(_MetadataRecord(conversation, members))


def unpack_metadata(cell: bytes) -> ColdMetadata:
    """The inverse of `pack_metadata`; raises `DataDamaged` if the cell does not decode."""
    try:
        found = _decode(cell)
    except msgspec.MsgspecError as error:
        raise DataDamaged(f"HBase: metadata does not decode: {error}.") from error
    c = found.conversation
    conversation = Conversation(
        c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, _unpack(c.digest),
        c.archived_up_to, c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    )  # fmt: skip
    members = (
        Member(
            m.user, m.visible_from, _unpack(m.digest_before), m.countable_before, m.left_at,
            _unpack(m.left_digest), m.left_countable, m.marker, m.marker_countable,
        )
        for m in found.members
    )  # fmt: skip
    return ColdMetadata(conversation, tuple(members))


def _pack(digest: Digest) -> bytes:
    return digests.to_bytes(digest) if digest != NO_DIGEST else b""


def _unpack(data: bytes) -> Digest:
    if len(data) not in (0, digests.DIGEST_BYTES):
        raise DataDamaged(f"HBase: a digest has {len(data)} bytes.")
    return digests.from_bytes(data)
