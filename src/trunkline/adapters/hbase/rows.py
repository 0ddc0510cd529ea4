"""What stands where in the table: row keys, columns, and what makes a row believable.

A segment's row key has 26 bytes: 2 of a hash of the conversation's key, which spread
conversations over the regions; the key (8); the first seq, inverted bit by bit (8), so that a
scan meets newer segments first; the last seq (8). A conversation's metadata stands before its
segments, in a row of the first 10 bytes alone.

A segment has a head (key, first, last, digest, length and number of pieces) and its sealed
bytes in pieces: HBase refuses a cell of more than 10 MiB. Metadata is one cell, or where that
would be too large an empty one and, beside it, a head (key, length, number of pieces, checksum)
and pieces. All cells of a row are put together, so that a reader sees one state of it or another.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from trunkline.adapters.hbase.idl import Struct, idl
from trunkline.adapters.hbase.records import pack_metadata, unpack_metadata
from trunkline.core import digest as digests
from trunkline.core.envelope import wrapping_of
from trunkline.core.segments import SEGMENT_ENTRIES
from trunkline.errors import DataDamaged, TierUnavailable
from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq

FAMILY: Final = b"s"
PIECE_BYTES: Final = 4 << 20
PREFIX_BYTES: Final = 10
SEGMENT_BYTES: Final = 26

_PREFIX: Final = struct.Struct(">2sQ")
_RANGE: Final = struct.Struct(">QQ")
_HEAD: Final = struct.Struct(">QQQ16sII")
_HEAD_COLUMN: Final = b"h"
_METADATA_COLUMN: Final = b"m"
_METADATA_HEAD_COLUMN: Final = b"n"
_METADATA_HEAD: Final = struct.Struct(">QQI16s")
METADATA_BYTES: Final = 64 << 20
"""A put is one message to HBase's Thrift server, which takes up to 100 MiB."""
_INVERTED: Final = 2**64 - 1
# Of writes with one timestamp HBase shows the last. With its own timestamps it would show the one
# whose server had the later clock, and an erased body could come back.
_TIMESTAMP: Final = 1
# Metadata is stamped with how its key is wrapped, by KEK and format, so that an archiver which has
# read the conversation before its key was wrapped anew, or destroyed, puts nothing back.
_SHREDDED: Final = 1 << 33


class Place(msgspec.Struct, frozen=True, gc=False):
    """What a row key names: a segment, or (first and last 0) a conversation's metadata."""

    key: ConversationKey
    first: Seq = Seq(0)
    last: Seq = Seq(0)

    @property
    def is_segment(self) -> bool:
        """Whether a segment stands there."""
        return self.last > 0


def hash_of(key: ConversationKey) -> bytes:
    """2 bytes: BLAKE2b-16 (RFC 7693) of the key's 8 bytes, big endian."""
    return blake2b(key.to_bytes(8, "big"), digest_size=2).digest()


def prefix(key: ConversationKey) -> bytes:
    """What all rows of a conversation begin with; its metadata's whole row key."""
    return _PREFIX.pack(hash_of(key), key)


def newest(key: ConversationKey, up_to_inclusive: Seq) -> bytes:
    """Where a scan starts that meets segments with first <= up_to_inclusive, newest first."""
    return prefix(key) + (_INVERTED - up_to_inclusive).to_bytes(8, "big")


def oldest(key: ConversationKey, reaching: Seq) -> bytes:
    """Where that scan may stop: segments that begin before it end before `reaching`.

    No segment has more than 256 entries (`put_segment` refuses it), so one that holds
    `reaching` begins at most 255 before it, however segments overlap.
    """
    return newest(key, Seq(max(0, reaching - SEGMENT_ENTRIES)))


def end(key: ConversationKey) -> bytes:
    """Behind all rows of a conversation."""
    return prefix(key) + b"\xff" * (SEGMENT_BYTES - PREFIX_BYTES + 1)


def above(row: bytes) -> bytes:
    """The lowest row key above one."""
    return row + b"\0"


def below(row: bytes) -> bytes:
    """A row key below one, above which no row of ours lies before it."""
    if row.endswith(b"\0"):
        return row[:-1]
    return row[:-1] + bytes([row[-1] - 1]) + b"\xff" * (SEGMENT_BYTES - len(row))


def place(row: bytes) -> Place:
    """What a row key names; raises `DataDamaged` if it is none of ours."""
    if len(row) in (PREFIX_BYTES, SEGMENT_BYTES):
        hashed, number = _PREFIX.unpack_from(row)
        key = ConversationKey(number)
        if hashed == hash_of(key):
            if len(row) == PREFIX_BYTES:
                return Place(key)
            inverted, last = _RANGE.unpack_from(row, PREFIX_BYTES)
            first = _INVERTED - inverted
            if 1 <= first <= last < first + SEGMENT_ENTRIES:
                return Place(key, Seq(first), Seq(last))
    raise DataDamaged(f"HBase: {row.hex()} is no row key of a segment or of metadata.")


def put_segment(segment: Segment) -> Struct:
    """The put of a segment, synced to disk."""
    first, last, sealed = segment.first, segment.last, segment.sealed
    assert 1 <= first <= last < first + SEGMENT_ENTRIES, (
        f"I8: a segment of {first} to {last} could be missed by reads"
    )
    pieces = [sealed[at : at + PIECE_BYTES] for at in range(0, len(sealed), PIECE_BYTES)]
    head = _HEAD.pack(
        segment.key, first, last, digests.to_bytes(segment.digest), len(sealed), len(pieces)
    )
    row = newest(segment.key, first) + last.to_bytes(8, "big")
    return _put(row, [(_HEAD_COLUMN, head), *zip(_piece_columns(len(pieces)), pieces, strict=True)])


def put_metadata(metadata: ColdMetadata) -> Struct:
    """The put of a conversation's metadata, synced to disk.

    Raises `TierUnavailable` if it is larger than a row may be.
    """
    conversation = metadata.conversation
    cell = pack_metadata(metadata)
    if len(cell) > METADATA_BYTES:
        raise TierUnavailable(
            f"The metadata of {conversation.key:016x} has {len(cell)} bytes; HBase is given "
            f"{METADATA_BYTES} at most."
        )
    return _put(
        prefix(conversation.key),
        [(_METADATA_COLUMN, cell)]
        if len(cell) <= PIECE_BYTES
        else _metadata_pieces(conversation.key, cell),
        _SHREDDED if conversation.shredded else _TIMESTAMP + wrapping_of(conversation.wrapped_key),
    )


def segment_of(result: Struct) -> Segment:
    """The segment of a row; raises `DataDamaged` unless the row holds what its key names."""
    at = place(result.row)
    columns = {value.qualifier: value.value for value in result.columnValues}
    head = columns.get(_HEAD_COLUMN, b"")
    if at.is_segment and len(head) == _HEAD.size:
        key, first, last, digest, length, count = _HEAD.unpack(head)
        # A longer segment that stood here before may have left pieces beyond these.
        pieces = _piece_columns(min(count, len(columns)))
        sealed = b"".join(columns.get(name, b"") for name in pieces)
        if Place(key, first, last) == at and len(sealed) == length:
            return Segment(at.key, at.first, at.last, digests.from_bytes(digest), sealed)
    raise DataDamaged(f"HBase: row {result.row.hex()} does not hold the segment that it names.")


def metadata_of(result: Struct) -> ColdMetadata:
    """The metadata of a row; raises `DataDamaged` unless it is of the row's conversation."""
    key = place(result.row).key
    columns = {value.qualifier: value.value for value in result.columnValues}
    metadata = unpack_metadata(columns.get(_METADATA_COLUMN) or _metadata_of_pieces(key, columns))
    if metadata.conversation.key != key:
        raise DataDamaged(f"HBase: row {result.row.hex()} holds another conversation's metadata.")
    return metadata


def _metadata_pieces(key: ConversationKey, cell: bytes) -> list[tuple[bytes, bytes]]:
    pieces = [cell[at : at + PIECE_BYTES] for at in range(0, len(cell), PIECE_BYTES)]
    head = _METADATA_HEAD.pack(key, len(cell), len(pieces), _checksum(cell))
    # The empty one hides what a smaller state of it left there.
    return [
        (_METADATA_COLUMN, b""),
        (_METADATA_HEAD_COLUMN, head),
        *zip(_piece_columns(len(pieces)), pieces, strict=True),
    ]


def _metadata_of_pieces(key: ConversationKey, columns: Mapping[bytes, bytes]) -> bytes:
    head = columns.get(_METADATA_HEAD_COLUMN, b"")
    if len(head) == _METADATA_HEAD.size:
        of_key, length, count, checksum = _METADATA_HEAD.unpack(head)
        cell = b"".join(columns.get(name, b"") for name in _piece_columns(min(count, len(columns))))
        if (of_key, length, checksum) == (key, len(cell), _checksum(cell)):
            return cell
    raise DataDamaged(f"HBase: the metadata of {key:016x} is not whole.")


def _checksum(cell: bytes) -> bytes:
    return blake2b(cell, digest_size=16).digest()


def put_bytes(put: Struct) -> int:
    """About how large a put is on the wire."""
    return sum(len(column.value) + 32 for column in put.columnValues) + 64


def splits(regions: int) -> list[bytes]:
    """The row keys at which a new table is split into regions of equal parts of the hashes."""
    return [(65_536 * number // regions).to_bytes(2, "big") for number in range(1, regions)]


def _piece_columns(count: int) -> Iterator[bytes]:
    return (b"%d" % number for number in range(count))


def _put(row: bytes, columns: Sequence[tuple[bytes, bytes]], timestamp: int = _TIMESTAMP) -> Struct:
    return idl.TPut(
        row=row,
        columnValues=[
            idl.TColumnValue(family=FAMILY, qualifier=name, value=value) for name, value in columns
        ],
        timestamp=timestamp,
        # Whatever the table or the site says: on disk, not only with the file system.
        durability=idl.TDurability.FSYNC_WAL,
    )
