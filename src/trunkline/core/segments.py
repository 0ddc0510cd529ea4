"""Cold segments: runs of opened entries, packed and compressed before they are sealed.

The client message id is not part of a segment (DESIGN section 9).
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from trunkline.core import digest as digests
from trunkline.core.envelope import segment_associated_data
from trunkline.core.sealing import Cipher
from trunkline.errors import DataDamaged
from trunkline.model import Conversation, Entry, Kind, Segment, Seq, UserId

SEGMENT_ENTRIES: Final = 256
_LEVEL: Final = 3
_MOST_BYTES: Final = 64 << 20


class _Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    sender: UserId
    kind: Kind
    time_ms: int
    refers_to: Seq
    content_type: str
    body: str


class _Payload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    countable_before: int
    entries: list[_Packed]


class OpenedSegment(msgspec.Struct, frozen=True, gc=False):
    """A segment's entries and their hashes; `countable_before` is the count before the first."""

    entries: list[Entry]
    countable_before: int
    hashes: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Payload).decode


def plan(after: Seq, up_to_inclusive: Seq) -> list[tuple[Seq, Seq]]:
    """Cuts after+1..up_to_inclusive into (first, last) runs of at most 256.

    Cuts lie at multiples of 256, so that runs archived at different times do not
    straddle one another.
    """
    runs: list[tuple[Seq, Seq]] = []
    while after < up_to_inclusive:
        last = min(up_to_inclusive, (after // SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES)
        runs.append((Seq(after + 1), Seq(last)))
        after = Seq(last)
    return runs


def seal(
    conversation: Conversation, entries: Sequence[Entry], countable_before: int, cipher: Cipher
) -> Segment:
    """Packs, compresses and seals a contiguous run, bound to key, range and digest.

    `countable_before` is the running count of messages before the run.
    """
    entry_hash = digests.hasher(conversation.id, cipher.digest_key)
    digest = digests.total(digests.hash_entry(entry, entry_hash) for entry in entries)
    packed = _encode(
        _Payload(
            countable_before,
            [
                _Packed(e.sender, e.kind, e.time_ms, e.refers_to, e.content_type, e.body)
                for e in entries
            ],
        )
    )
    first, last = entries[0].seq, entries[-1].seq
    sealed = cipher.seal(
        zstandard.ZstdCompressor(level=_LEVEL).compress(packed),
        segment_associated_data(conversation.id, first, last, digest),
    )
    return Segment(conversation.key, first, last, digest, sealed)


def open_segment(conversation: Conversation, segment: Segment, cipher: Cipher) -> OpenedSegment:
    """The entries of a segment; raises `DataDamaged` unless all of it is what was sealed."""
    packed = cipher.open(
        segment.sealed,
        segment_associated_data(conversation.id, segment.first, segment.last, segment.digest),
    )
    payload = _decode(zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MOST_BYTES))
    entries = [
        Entry(Seq(seq), r.sender, r.time_ms, r.body, r.kind, r.content_type, r.refers_to)
        for seq, r in enumerate(payload.entries, segment.first)
    ]
    entry_hash = digests.hasher(conversation.id, cipher.digest_key)
    hashes = [digests.hash_entry(entry, entry_hash) for entry in entries]
    if digests.total(hashes) != segment.digest or len(entries) != segment.last - segment.first + 1:
        raise DataDamaged(
            f"Segment {segment.first} to {segment.last} does not hold what its digest says."
        )
    return OpenedSegment(entries, payload.countable_before, hashes)
