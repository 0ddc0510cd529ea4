"""Reads, makes and changes keyrings: versioned key-encryption keys (KEKs), JSON, mode 0600.

{"format": 1, "current": 1, "keys": {"1": "<base64 of 32 bytes>"}}
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from trunkline.errors import ConfigInvalid, KeyringMissing, KeyringWrong

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
        place: where it came from, for whoever reads an error.
        created: whether opening made it, which whoever starts the server should be told.
        readable_by_others: whether its group or the world may read the file. It is not
            refused: secrets mounted into a container often come with such a mode, and
            whoever runs the server cannot change it. The start warns of it.
    """

    place: str
    current: int
    keys: Mapping[int, bytes]
    created: bool = False
    readable_by_others: bool = False

    @property
    def newest(self) -> int:
        """The highest id: keys are added above all others, so that ids tell their age."""
        return max(self.keys)

    def with_key(self, key: bytes) -> "Keyring":
        """The same with one more key, which is not current yet."""
        return msgspec.structs.replace(self, keys={**self.keys, self.newest + 1: key})

    def with_current(self, kek_id: int) -> "Keyring":
        """The same with that key for new data keys; never an older one than before."""
        return msgspec.structs.replace(self, current=max(self.current, kek_id))

    def without(self, kek_id: int) -> "Keyring":
        """The same without a key that is not current."""
        kept = {other: key for other, key in self.keys.items() if other != kek_id}
        return msgspec.structs.replace(self, keys=kept)

    def encode(self) -> bytes:
        """What a file of it holds."""
        keys = {str(kek_id): self.keys[kek_id] for kek_id in sorted(self.keys)}
        return msgspec.json.encode(_File(_FORMAT, self.current, keys))


def decode_keyring(data: bytes, place: str) -> Keyring:
    """The inverse of `Keyring.encode`; raises `KeyringWrong` if that is no keyring."""
    try:
        file = msgspec.json.decode(data, type=_File)
        keys = {int(kek_id): key for kek_id, key in file.keys.items()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise KeyringWrong(f"{place} is not a keyring, or a damaged one.") from error
    if file.format != _FORMAT:
        raise KeyringWrong(f"{place} has format {file.format}; this version reads {_FORMAT}.")
    if file.current not in keys:
        raise KeyringWrong(f"{place} does not hold its current key {file.current}.")
    for kek_id, key in keys.items():
        if kek_id not in _KEK_IDS or len(key) != KEY_BYTES:
            raise KeyringWrong(f"Key {kek_id} in {place} is not {KEY_BYTES} bytes long.")
    return Keyring(place, file.current, keys)


def read_keyring(path: Path) -> Keyring:
    """The keyring of a file; raises `KeyringMissing`, or `KeyringWrong` if it is none."""
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise KeyringMissing(f"There is no keyring at {path}.") from error
    except OSError as error:
        raise KeyringMissing(f"The keyring {path} cannot be read: {error.strerror}.") from error
    exposed = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    return msgspec.structs.replace(decode_keyring(data, str(path)), readable_by_others=exposed)


def make_keyring(path: Path, random_bytes: Callable[[int], bytes]) -> Keyring:
    """Makes a keyring with one key, on disk when it returns; an existing one is left alone.

    Linked into place whole: neither a crash nor a second process leaves half a file, or
    replaces a keyring that something was sealed with already.
    """
    made = Keyring(str(path), 1, {1: random_bytes(KEY_BYTES)})
    path.parent.mkdir(parents=True, exist_ok=True)
    created = True
    with _draft(path, made, random_bytes) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            created = False
    return msgspec.structs.replace(read_keyring(path), created=created)


def change_keyring(
    path: Path, change: Callable[[Keyring], Keyring], random_bytes: Callable[[int], bytes]
) -> Keyring:
    """Replaces the keyring of a file by what `change` makes of it, on disk when it returns.

    One change at a time; a crash leaves the old file or the new one. Raises as `read_keyring`,
    and `ConfigInvalid` where the file may not be written.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            changed = change(read_keyring(path))
            with _draft(path, changed, random_bytes) as draft:
                draft.replace(path)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigInvalid(
            f"The keyring {path} cannot be written here ({error.strerror}): run this where it "
            "can, or give it by `keyring.json`, whose changes are printed."
        ) from error
    return changed


@contextmanager
def _draft(path: Path, keyring: Keyring, random_bytes: Callable[[int], bytes]) -> Iterator[Path]:
    """A file (0600) that holds a keyring, on disk, beside the place that it is meant for."""
    draft = path.with_name(f".{path.name}.{random_bytes(8).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(keyring.encode())
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
