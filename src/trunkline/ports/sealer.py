"""Sealer: encryption at rest, one data key a conversation (DESIGN section 8)."""

from typing import Protocol

from trunkline.core.sealing import Cipher, PacketCipher
from trunkline.model import WorkerId


class Sealer(Protocol):
    """Wraps a data key per conversation with a versioned key-encryption key."""

    def new_wrapped_key(self) -> bytes:
        """A fresh random data key, wrapped."""
        ...

    def cipher(self, wrapped_key: bytes) -> Cipher:
        """The cipher of a wrapped key; raises `KeyringWrong` if it does not unwrap."""
        ...

    def packet_cipher(self, worker: WorkerId) -> PacketCipher:
        """The cipher of what one boot of a worker publishes (I12): every worker with the
        same keyring opens what another sealed.

        A worker asks for its own once a boot: its nonces count from 1 in each.
        """
        ...
