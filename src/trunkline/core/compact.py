"""Short forms in which stores keep what stands in every entry: kinds, client message ids."""

from typing import Final

from trunkline.errors import DataDamaged
from trunkline.model import ClientMessageId, Kind

_KINDS: Final = (Kind.MESSAGE, Kind.CREATED, Kind.JOINED, Kind.LEFT, Kind.RENAMED, Kind.LOST)
"""A kind's number is its place: only ever append here."""
KIND_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}

_BARE_CHARACTERS: Final = 32
_HYPHENED_CHARACTERS: Final = 36
_BARE: Final = b"\0"
_HYPHENED: Final = b"\0\0"
_BARE_BYTES: Final = len(_BARE) + 16
_HYPHENED_BYTES: Final = len(_HYPHENED) + 16


def kind_of(number: int) -> Kind:
    """The kind with a number; raises `DataDamaged` if there is none."""
    try:
        return _KINDS[number]
    except IndexError:
        raise DataDamaged(f"No kind of entry has the number {number}.") from None


def short_id(name: str) -> bytes:
    """A client message id as bytes, a UUID in lower case as its 16 bytes behind a mark.

    No id holds a NUL, so the marks are one (bare digits) and two of them (with hyphens). Ids
    that rise with time, as UUIDv7 do, rise in this form as well. Capitals, or hyphens elsewhere,
    would not come back: such an id stays as it is.
    """
    try:
        if len(name) == _BARE_CHARACTERS:
            digits = bytes.fromhex(name)
            return _BARE + digits if digits.hex() == name else name.encode()
        if len(name) == _HYPHENED_CHARACTERS:
            short = _HYPHENED + bytes.fromhex(name.replace("-", ""))
            if len(short) == _HYPHENED_BYTES and long_id(short) == name:
                return short
    except ValueError:
        pass
    return name.encode()


def long_id(short: bytes) -> ClientMessageId:
    """The inverse of `short_id`; raises `DataDamaged` if the bytes are no id."""
    if short[:1] != _BARE:
        try:
            return ClientMessageId(short.decode())
        except UnicodeDecodeError:
            raise DataDamaged(f"{short!r} is no id.") from None
    digits = short.hex()
    if len(short) == _BARE_BYTES:
        return ClientMessageId(digits[2:])
    if len(short) == _HYPHENED_BYTES:
        return ClientMessageId(
            f"{digits[4:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:24]}-{digits[24:]}"
        )
    raise DataDamaged(f"{short!r} is no id.")
