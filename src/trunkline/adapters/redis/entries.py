"""An entry as it stands in the list: its running digest, then the rest in MessagePack.

Neither the seq nor the entry's own hash is kept: the place in the list gives the one, the
difference of two running digests the other. The body stays sealed (I12).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.model import ClientMessageId, Kind, Seq, StoredEntry, UserId

_KINDS: Final = (Kind.MESSAGE, Kind.CREATED, Kind.JOINED, Kind.LEFT, Kind.RENAMED)
"""A kind's number is its place: only ever append here."""
_KIND_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_UUID_BYTES: Final = 16
_BARE_CHARACTERS: Final = 32
_HYPHENED_CHARACTERS: Final = 36

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, object, int, int, int, int, bytes]).decode


class Unreadable(Exception):
    """These bytes are no entry, or one of a newer version."""


def encode(entry: StoredEntry) -> bytes:
    """The entry without its seq and hash."""
    return entry.digest + _encode(
        (
            entry.sender,
            _short(entry.client_message_id),
            _KIND_NUMBERS[entry.kind],
            entry.time_ms,
            entry.refers_to,
            entry.countable,
            entry.sealed,
        )
    )


def decode(stored: Sequence[bytes], after: int, digest_before: bytes) -> list[StoredEntry]:
    """The entries after+1, after+2 …; `digest_before` is the running digest at `after`.

    Raises `Unreadable`.
    """
    entries = []
    before = int.from_bytes(digest_before)
    try:
        for seq, data in enumerate(stored, after + 1):
            digest = data[: digests.DIGEST_BYTES]
            running = int.from_bytes(digest)
            entry_hash = ((running - before) & _MASK).to_bytes(digests.DIGEST_BYTES)
            before = running
            sender, short, kind, time_ms, refers_to, countable, sealed = _decode(
                memoryview(data)[digests.DIGEST_BYTES :]
            )
            entries.append(
                StoredEntry(
                    Seq(seq), UserId(sender), _long(short), _KINDS[kind], time_ms,
                    Seq(refers_to), countable, entry_hash, digest, sealed,
                )
            )  # fmt: skip
    except (msgspec.MsgspecError, IndexError) as error:
        raise Unreadable(str(error)) from None
    return entries


def digest_before(entry: StoredEntry) -> bytes:
    """The running digest just before an entry."""
    before = int.from_bytes(entry.digest) - int.from_bytes(entry.entry_hash)
    return (before & _MASK).to_bytes(digests.DIGEST_BYTES)


_MASK: Final = (1 << 8 * digests.DIGEST_BYTES) - 1


def _short(message_id: str) -> str | bytes:
    """A UUID as its 16 bytes, with a zero before them if it had hyphens; else as it is."""
    length = len(message_id)
    if length != _BARE_CHARACTERS and length != _HYPHENED_CHARACTERS:
        return message_id
    try:
        short = bytes.fromhex(message_id.replace("-", ""))
    except ValueError:
        return message_id
    if length == _HYPHENED_CHARACTERS:
        short = b"\0" + short
    # Capitals, or hyphens elsewhere, would not come back.
    return short if _long(short) == message_id else message_id


def _long(short: object) -> ClientMessageId:
    if not isinstance(short, bytes):
        return ClientMessageId(str(short))
    digits = short.hex()
    if len(short) == _UUID_BYTES:
        return ClientMessageId(digits)
    return ClientMessageId(
        f"{digits[2:10]}-{digits[10:14]}-{digits[14:18]}-{digits[18:22]}-{digits[22:]}"
    )
