"""How the local store packs runs of entries and copies into rows."""

from typing import Final

import msgspec
import zstandard

from trunkline.client.store import Copy, Met
from trunkline.model import Entry

RUN_ENTRIES: Final = 256
"""At most so many entries stand in one row."""
TAIL_ROWS: Final = 32
"""So many small rows at a copy's end are joined into one."""
_COMPRESS_BYTES: Final = 1024
_RUN_BYTES_MAX: Final = 256 << 20
_ZSTD_FIRST_BYTE: Final = 0x28  # no MessagePack array starts so

_encode = msgspec.msgpack.Encoder().encode
_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_copy = msgspec.msgpack.Decoder(Copy).decode
_decode_met = msgspec.msgpack.Decoder(Met).decode


class RunPacker:
    """Packs runs, compressed where they are larger than a kilobyte; of one thread."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def pack(self, entries: list[Entry]) -> bytes:
        """The row of a run."""
        data = _encode(entries)
        return data if len(data) < _COMPRESS_BYTES else self._compress(data)

    def unpack(self, data: bytes) -> list[Entry]:
        """The inverse of `pack`."""
        if data[0] == _ZSTD_FIRST_BYTE:
            data = self._decompress(data, max_output_size=_RUN_BYTES_MAX)
        return _decode_entries(data)


def pack_copy(copy: Copy) -> bytes:
    """The row of a copy."""
    return _encode(copy)


def unpack_copy(data: bytes) -> Copy:
    """The inverse of `pack_copy`."""
    return _decode_copy(data)


def pack_met(met: Met) -> bytes:
    """The row of a store that was met."""
    return _encode(met)


def unpack_met(data: bytes) -> Met:
    """The inverse of `pack_met`."""
    return _decode_met(data)
