"""An entry as it stands in the list: its running digest, then the rest in MessagePack.

Neither the seq nor the entry's own hash is kept: the place in the list gives the one, the
difference of two running digests the other. The body stays sealed (I12).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.compact import KIND_NUMBERS, kind_of, long_id, short_id
from trunkline.errors import DataDamaged
from trunkline.model import Seq, StoredEntry, UserId

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, bytes, int, int, int, int, bytes]).decode


class Unreadable(Exception):
    """These bytes are no entry, or one of a newer version."""


def encode(entry: StoredEntry) -> bytes:
    """The entry without its seq and hash."""
    return entry.digest + _encode(
        (
            entry.sender,
            short_id(entry.client_message_id),
            KIND_NUMBERS[entry.kind],
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
                    Seq(seq), UserId(sender), long_id(short), kind_of(kind), time_ms,
                    Seq(refers_to), countable, entry_hash, digest, sealed,
                )
            )  # fmt: skip
    except (msgspec.MsgspecError, DataDamaged, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from None
    return entries


def digest_before(entry: StoredEntry) -> bytes:
    """The running digest just before an entry."""
    before = int.from_bytes(entry.digest) - int.from_bytes(entry.entry_hash)
    return (before & _MASK).to_bytes(digests.DIGEST_BYTES)


_MASK: Final = (1 << 8 * digests.DIGEST_BYTES) - 1
