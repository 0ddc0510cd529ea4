"""What is sealed and what it is bound to: bytes in, bytes out; the nonce is the Sealer's.

A sealed body opens only as the entry it was written for: the associated data holds the
conversation's id, seq, sender, client message id, kind, time and target, so that a blob
moved to another row is refused (DESIGN section 8).
"""

from struct import Struct
from typing import Final

from trunkline.core.digest import to_bytes
from trunkline.model import (
    TEXT,
    ClientMessageId,
    ConversationId,
    Digest,
    Entry,
    Seq,
    StoredEntry,
    UserId,
)

HEADER: Final = b"\x01\x01"
"""Format 1, data key 1 of the conversation; stands before every sealed blob."""
_ENTRY: Final = Struct(">2sQQqHHHH")
_SEGMENT: Final = Struct(">2sQQ16s")
_PACKED_TEXT: Final = bytes((len(TEXT),)) + TEXT.encode()


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


def pack_body(content_type: str, body: str) -> bytes:
    """The plaintext of an entry: length of the content type (1 byte), the type, the body."""
    type_bytes = content_type.encode()
    return bytes((len(type_bytes),)) + type_bytes + body.encode()


def unpack_body(plaintext: bytes) -> tuple[str, str]:
    """Content type and body; the inverse of `pack_body`."""
    if plaintext.startswith(_PACKED_TEXT):
        return TEXT, plaintext[len(_PACKED_TEXT) :].decode()
    end = 1 + plaintext[0]
    return plaintext[1:end].decode(), plaintext[end:].decode()


def opened(entry: StoredEntry, plaintext: bytes) -> Entry:
    """The entry as a member sees it, from its row and its opened body."""
    content_type, body = unpack_body(plaintext)
    return Entry(
        entry.seq, entry.sender, entry.time_ms, body, entry.kind, content_type, entry.refers_to
    )
