"""Entry hashes and their sums: equal digests mean equal copies (DESIGN section 9, I14)."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final

from trunkline.model import NO_DIGEST, ConversationId, Digest, Entry, Seq, UserId

DIGEST_BYTES: Final = 16
_MODULUS_MASK: Final = (1 << 128) - 1
_FIXED: Final = Struct(">QQqHHHHI")

EntryHash = Callable[[Seq, UserId, str, int, str, str, Seq], bytes]


def hasher(conversation: ConversationId, digest_key: bytes) -> EntryHash:
    """Returns `hash(seq, sender, kind, time_ms, content_type, body, refers_to) -> 16 bytes`.

    BLAKE2b-128 (RFC 7693) keyed with the conversation's digest key, over: seq, refers_to
    and time as 8 bytes each, the byte lengths of conversation id, sender, kind and
    content type as 2 bytes each and of the body as 4 (all big endian), then these five
    in UTF-8.
    """
    conversation_bytes = conversation.encode()
    conversation_length = len(conversation_bytes)
    pack = _FIXED.pack

    def entry_hash(
        seq: Seq,
        sender: UserId,
        kind: str,
        time_ms: int,
        content_type: str,
        body: str,
        refers_to: Seq,
    ) -> bytes:
        sender_bytes = sender.encode()
        kind_bytes = kind.encode()
        type_bytes = content_type.encode()
        body_bytes = body.encode()
        return blake2b(
            pack(
                seq,
                refers_to,
                time_ms,
                conversation_length,
                len(sender_bytes),
                len(kind_bytes),
                len(type_bytes),
                len(body_bytes),
            )
            + conversation_bytes
            + sender_bytes
            + kind_bytes
            + type_bytes
            + body_bytes,
            digest_size=DIGEST_BYTES,
            key=digest_key,
        ).digest()

    return entry_hash


def hash_entry(entry: Entry, entry_hash: EntryHash) -> bytes:
    """The hash of an opened entry by its conversation's hasher, 16 bytes."""
    return entry_hash(
        entry.seq,
        entry.sender,
        entry.kind,
        entry.time_ms,
        entry.content_type,
        entry.body,
        entry.refers_to,
    )


def add(digest: Digest, entry_hash: bytes) -> Digest:
    """The digest with one more entry in it."""
    return Digest((digest + int.from_bytes(entry_hash, "big")) & _MODULUS_MASK)


def total(hashes: Iterable[bytes], start: Digest = NO_DIGEST) -> Digest:
    """The digest of a run of entry hashes, added to `start`."""
    return Digest((start + sum(int.from_bytes(h, "big") for h in hashes)) & _MODULUS_MASK)


def subtract(digest: Digest, before: Digest) -> Digest:
    """The digest of what lies behind `before` within `digest`."""
    return Digest((digest - before) & _MODULUS_MASK)


def to_bytes(digest: Digest) -> bytes:
    """16 bytes, big endian."""
    return digest.to_bytes(DIGEST_BYTES, "big")


def from_bytes(data: bytes) -> Digest:
    """The inverse of `to_bytes`."""
    return Digest(int.from_bytes(data, "big"))


def to_hex(digest: Digest) -> str:
    """32 hex digits, as digests stand on the wire."""
    return f"{digest:032x}"


def vector_term(conversation: ConversationId, seq: Seq) -> int:
    """One conversation's term of an endpoint's vector digest; seq 0 adds nothing."""
    if not seq:
        return 0
    data = seq.to_bytes(8, "big") + conversation.encode()
    return int.from_bytes(blake2b(data, digest_size=DIGEST_BYTES).digest(), "big")


def vector_digest(vector: Mapping[ConversationId, Seq]) -> Digest:
    """The digest of an endpoint's last seqs, order-free; kept up to date by differences."""
    return Digest(sum(vector_term(c, s) for c, s in vector.items()) & _MODULUS_MASK)


def move_vector(digest: Digest, conversation: ConversationId, old: Seq, new: Seq) -> Digest:
    """The vector digest after one conversation moved from `old` to `new`."""
    return Digest(
        (digest - vector_term(conversation, old) + vector_term(conversation, new)) & _MODULUS_MASK
    )
