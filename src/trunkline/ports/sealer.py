"""Sealer: encryption at rest, one data key a conversation (DESIGN section 8)."""

from typing import Protocol

from trunkline.core.sealing import Cipher


class Sealer(Protocol):
    """Wraps a data key per conversation with a versioned key-encryption key."""

    def new_wrapped_key(self) -> bytes:
        """A fresh random data key, wrapped."""
        ...

    def cipher(self, wrapped_key: bytes) -> Cipher:
        """The cipher of a wrapped key; raises `KeyringWrong` if it does not unwrap."""
        ...
