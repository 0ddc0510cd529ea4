"""What is sealed and what it is bound to: bytes in, bytes out; the nonce is the Sealer's.

A sealed body opens only as the entry it was written for: the associated data holds the
conversation's id, seq, sender, client message id, kind, time and target, so that a blob
moved to another row is refused (DESIGN section 8).
"""

from struct import Struct
from typing import Final

from trunkline.core.bodies import unpack_body
from trunkline.core.digest import to_bytes
from trunkline.model import (
    ClientMessageId,
    ConversationId,
    Digest,
    Entry,
    Place,
    Seq,
    StoredEntry,
    UserId,
)

HEADER: Final = b"\x01\x01"
"""Format 1, data key 1 of the conversation; stands before every sealed blob."""
WRAPPED_FORMAT: Final = 2
"""A wrapped key of this format opens for its own conversation only."""
UNBOUND_FORMAT: Final = 1
"""That of the first version: such a key opens for any conversation."""
_WRAPPED: Final = Struct(">BI")
WRAPPED_HEADER_BYTES: Final = _WRAPPED.size
_ENTRY: Final = Struct(">2sQQqHHHH")
_SEGMENT: Final = Struct(">2sQQ16s")


def wrapped_header(kek_id: int) -> bytes:
    """What every key begins with that was wrapped under one key-encryption key (KEK).

    5 bytes: format, id of the KEK (4 bytes, big endian). A Sealer over a KMS begins with it,
    too, and numbers the versions of its key: so stores can tell what is still to be re-wrapped.
    """
    return _WRAPPED.pack(WRAPPED_FORMAT, kek_id)


def kek_of(wrapped_key: bytes) -> int:
    """Id of the KEK that wrapped a key, from its first bytes; 0 if it is none (shredded)."""
    if len(wrapped_key) < WRAPPED_HEADER_BYTES:
        return 0
    wrapped_format, kek_id = _WRAPPED.unpack_from(wrapped_key)
    return int(kek_id) if wrapped_format in (WRAPPED_FORMAT, UNBOUND_FORMAT) else 0


def is_bound(wrapped_key: bytes) -> bool:
    """Whether a wrapped key opens for one conversation only; one that is empty opens nothing."""
    return not wrapped_key or wrapped_key[0] != UNBOUND_FORMAT


def wrapping_of(wrapped_key: bytes) -> int:
    """A number that rises whenever a key is wrapped anew: by KEK, then by format."""
    return 2 * kek_of(wrapped_key) + is_bound(wrapped_key)


def data_key_associated_data(place: Place) -> bytes:
    """What the wrapped data key of a place is bound to, behind its header."""
    return b"trunkline data key " + place.encode()


def entry_associated_data(
    conversation: bytes,
    seq: Seq,
    sender: UserId,
    client_message_id: ClientMessageId,
    kind: str,
    time_ms: int,
    refers_to: Seq,
) -> bytes:
    """Associated data of an entry's body; `conversation` is its id in UTF-8."""
    sender_bytes = sender.encode()
    id_bytes = client_message_id.encode()
    kind_bytes = kind.encode()
    return (
        _ENTRY.pack(
            HEADER,
            seq,
            refers_to,
            time_ms,
            len(conversation),
            len(sender_bytes),
            len(id_bytes),
            len(kind_bytes),
        )
        + conversation
        + sender_bytes
        + id_bytes
        + kind_bytes
    )


def associated_data_of(conversation: ConversationId, entry: StoredEntry) -> bytes:
    """Associated data of a stored entry."""
    return entry_associated_data(
        conversation.encode(),
        entry.seq,
        entry.sender,
        entry.client_message_id,
        entry.kind,
        entry.time_ms,
        entry.refers_to,
    )


def segment_associated_data(
    conversation: ConversationId, first: Seq, last: Seq, digest: Digest
) -> bytes:
    """Associated data of a cold segment."""
    return _SEGMENT.pack(HEADER, first, last, to_bytes(digest)) + conversation.encode()


def name_associated_data(conversation: ConversationId) -> bytes:
    """Associated data of a conversation's name."""
    return HEADER + b"name:" + conversation.encode()


def opened(entry: StoredEntry, plaintext: bytes) -> Entry:
    """The entry as a member sees it, from its row and its opened body."""
    content_type, body = unpack_body(plaintext)
    return Entry(
        entry.seq, entry.sender, entry.time_ms, body, entry.kind, content_type, entry.refers_to
    )
