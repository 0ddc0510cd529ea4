"""How a body is packed before it is sealed: its content type as a code, its text compressed.

Packed is what is sealed, so it is authentic when it is unpacked. A store holds bodies of every
packing there ever was; what is told apart by the first byte is told apart for ever.

| first byte | then |
|---|---|
| 0 to 128 | the content type, of so many bytes; the body |
| 240 | the body, `text/plain` |
| 241 | the body, `application/json` |
| 248, 249, 250 | as 240, 241 and 0 to 128 (length, type), the body compressed |

Compressed is a zstd frame without its magic number, made with `core.dictionary`, which tells the
length of the body.
"""

import threading
from typing import Final

import zstandard

from trunkline.core.dictionary import DICTIONARY
from trunkline.errors import DataDamaged
from trunkline.model import JSON, TEXT

_LEVEL: Final = 1
_WORTH_BYTES: Final = 24
"""Of shorter bodies hardly any becomes smaller."""
_PACKINGS: Final[dict[int, tuple[str | None, bool]]] = {
    240: (TEXT, False),
    241: (JSON, False),
    248: (TEXT, True),
    249: (JSON, True),
    250: (None, True),
}
"""By first byte: the content type, none if it is spelled out; whether the body is compressed."""
_FIRST_CODE: Final = min(_PACKINGS)
_CODES: Final = {packing: bytes((code,)) for code, packing in _PACKINGS.items()}

_dictionary = zstandard.ZstdCompressionDict(DICTIONARY)
_dictionary.precompute_compress(level=_LEVEL)
_parameters = zstandard.ZstdCompressionParameters.from_level(
    _LEVEL,
    format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    write_content_size=True,
    write_checksum=False,
    write_dict_id=False,
)


class _Contexts(threading.local):
    """zstd's contexts: one serves one thread at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(
            dict_data=_dictionary, compression_params=_parameters
        ).compress
        self.decompress = zstandard.ZstdDecompressor(
            dict_data=_dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        ).decompress


_contexts = _Contexts()


def pack_body(content_type: str, body: str, *, compress: bool = True) -> bytes:
    """The plaintext of an entry; `compress` makes the body smaller where that can be."""
    data = body.encode()
    compressed = False
    if compress and len(data) >= _WORTH_BYTES:
        smaller = _contexts.compress(data)
        if len(smaller) < len(data):
            data, compressed = smaller, True
    code = _CODES.get((content_type, compressed))
    if code is None:
        code = (_CODES[None, True] if compressed else b"") + _spelled(content_type)
    return code + data


def unpack_body(plaintext: bytes) -> tuple[str, str]:
    """Content type and body; raises `DataDamaged` if the packing is one of a newer version."""
    code = plaintext[0]
    if code < _FIRST_CODE:
        content_type, data = _with_type(plaintext)
        return content_type, data.decode()
    if code not in _PACKINGS:
        raise DataDamaged(f"A body is packed in a way that is not known here: {code}.")
    coded, compressed = _PACKINGS[code]
    data = plaintext[1:]
    content_type, data = _with_type(data) if coded is None else (coded, data)
    if compressed:
        try:
            data = _contexts.decompress(data)
        except zstandard.ZstdError as error:
            raise DataDamaged(f"A body does not decompress: {error}.") from None
    return content_type, data.decode()


def _spelled(content_type: str) -> bytes:
    data = content_type.encode()
    return bytes((len(data),)) + data


def _with_type(data: bytes) -> tuple[str, bytes]:
    end = 1 + data[0]
    return data[1:end].decode(), data[end:]
