"""Reads and makes the keyring file: versioned key-encryption keys, JSON, mode 0600.

{"format": 1, "current": 1, "keys": {"1": "<base64 of 32 bytes>"}}
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from trunkline.errors import KeyringMissing, KeyringWrong

KEY_BYTES: Final = 32
_FORMAT: Final = 1
_KEK_IDS: Final = range(1, 1 << 32)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    current: int
    keys: dict[str, bytes]


class Keyring(msgspec.Struct, frozen=True):
    """Key-encryption keys by their id; new data keys are wrapped with `current`.

    Attributes:
        created: whether opening made it, which whoever starts the server should be told.
        readable_by_others: whether its group or the world may read the file. It is not
            refused: secrets mounted into a container often come with such a mode, and
            whoever runs the server cannot change it. The start warns of it.
    """

    path: Path
    current: int
    keys: Mapping[int, bytes]
    created: bool = False
    readable_by_others: bool = False


def read_keyring(path: Path) -> Keyring:
    """The keyring of a file; raises `KeyringMissing`, or `KeyringWrong` if it is none."""
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise KeyringMissing(f"There is no keyring at {path}.") from error
    except OSError as error:
        raise KeyringMissing(f"The keyring {path} cannot be read: {error.strerror}.") from error
    try:
        file = msgspec.json.decode(data, type=_File)
        keys = {int(kek_id): key for kek_id, key in file.keys.items()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise KeyringWrong(f"{path} is not a keyring, or a damaged one.") from error
    if file.format != _FORMAT:
        raise KeyringWrong(f"{path} has format {file.format}; this version reads {_FORMAT}.")
    if file.current not in keys:
        raise KeyringWrong(f"{path} does not hold its current key {file.current}.")
    for kek_id, key in keys.items():
        if kek_id not in _KEK_IDS or len(key) != KEY_BYTES:
            raise KeyringWrong(f"Key {kek_id} in {path} is not {KEY_BYTES} bytes long.")
    exposed = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    return Keyring(path, file.current, keys, readable_by_others=exposed)


def make_keyring(path: Path, random_bytes: Callable[[int], bytes]) -> Keyring:
    """Makes a keyring with one key, on disk when it returns; an existing one is left alone.

    Linked into place whole: neither a crash nor a second process leaves half a file, or
    replaces a keyring that something was sealed with already.
    """
    content = msgspec.json.encode(_File(_FORMAT, 1, {"1": random_bytes(KEY_BYTES)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{random_bytes(8).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    created = True
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            created = False
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return msgspec.structs.replace(read_keyring(path), created=created)
