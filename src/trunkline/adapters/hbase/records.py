"""A conversation's metadata as its cell holds it: MessagePack, digests as 16 bytes."""

import msgspec

from trunkline.core.digest import DIGEST_BYTES
from trunkline.core.rows import (
    ConversationRow,
    MemberRow,
    conversation_of,
    conversation_row,
    member_of,
    member_row,
)
from trunkline.errors import DataDamaged
from trunkline.model import ColdMetadata


class _MetadataRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    conversation: ConversationRow
    members: list[MemberRow]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_MetadataRecord).decode


def pack_metadata(metadata: ColdMetadata) -> bytes:
    """The cell of a conversation's metadata."""
    members = list(map(member_row, metadata.members))
    return _encode(_MetadataRecord(conversation_row(metadata.conversation), members))


def unpack_metadata(cell: bytes) -> ColdMetadata:
    """The inverse of `pack_metadata`; raises `DataDamaged` if the cell does not decode."""
    try:
        found = _decode(cell)
    except msgspec.MsgspecError as error:
        raise DataDamaged(f"HBase: metadata does not decode: {error}.") from error
    _check_digest(found.conversation.digest)
    for member in found.members:
        _check_digest(member.digest_before)
        _check_digest(member.left_digest)
    return ColdMetadata(
        conversation_of(found.conversation), tuple(member_of(row, row.mac) for row in found.members)
    )


def _check_digest(data: bytes) -> None:
    if len(data) not in (0, DIGEST_BYTES):
        raise DataDamaged(f"HBase: a digest has {len(data)} bytes.")
