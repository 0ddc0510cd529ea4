"""Where a keyring comes from, may be read again, and may be changed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from trunkline.adapters.keyring.file import (
    KEY_BYTES,
    Keyring,
    change_keyring,
    decode_keyring,
    make_keyring,
    read_keyring,
)
from trunkline.adapters.keyring.settings import Settings
from trunkline.errors import ConfigInvalid, KeyringMissing

RandomBytes = Callable[[int], bytes]
"""Returns that many bytes which nobody can foresee: `os.urandom`, or a simulator's."""

KEYRING_FILE: Final = "keyring.json"


class KeyringSource(Protocol):
    """Raises `KeyringMissing` or `KeyringWrong` where there is no keyring to be had.

    Attributes:
        kept: whether `change` keeps what it made; if not, whoever asked must.
    """

    kept: bool

    def read(self, *, create: bool = False) -> Keyring:
        """The keyring as it is now; with `create` one is made where there is none."""
        ...

    def change(self, change: Callable[[Keyring], Keyring]) -> Keyring:
        """What `change` makes of it; on disk, where it is kept."""
        ...


class FileSource:
    """A keyring's file, mode 0600."""

    kept = True

    def __init__(self, path: Path, random_bytes: RandomBytes = os.urandom) -> None:
        self._path = path
        self._random_bytes = random_bytes

    def read(self, *, create: bool = False) -> Keyring:
        """The keyring of the file, which may have changed."""
        try:
            return read_keyring(self._path)
        except KeyringMissing:
            if not create or self._path.exists():
                raise
            return make_keyring(self._path, self._random_bytes)

    def change(self, change: Callable[[Keyring], Keyring]) -> Keyring:
        """Replaces the file."""
        return change_keyring(self._path, change, self._random_bytes)


class TextSource:
    """A keyring out of the settings: it stays as it is for as long as the process runs."""

    kept = False

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, *, create: bool = False) -> Keyring:
        """The keyring of the text; none is ever made."""
        return decode_keyring(self._text.encode(), "The setting `keyring.json`")

    def change(self, change: Callable[[Keyring], Keyring]) -> Keyring:
        """The changed keyring, which is kept nowhere."""
        return change(self.read())


def keyring_source(settings: Settings, data: Path) -> KeyringSource:
    """What the settings say; raises `ConfigInvalid` if they name two keyrings.

    `data`: the directory of the default file.
    """
    if settings.json:
        if settings.file:
            raise ConfigInvalid("`keyring.file` and `keyring.json` are both set: name one.")
        return TextSource(settings.json)
    return FileSource(Path(settings.file) if settings.file else data / KEYRING_FILE)


def new_key(random_bytes: RandomBytes = os.urandom) -> bytes:
    """A fresh key-encryption key."""
    return random_bytes(KEY_BYTES)
