"""The shape of an opened data key, as decisions use it."""

from typing import Protocol


class Cipher(Protocol):
    """The opened data key of one conversation."""

    @property
    def digest_key(self) -> bytes:
        """32 bytes, derived from the data key; endpoints get it with the conversation."""
        ...

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext."""
        ...

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken` if anything was changed or moved."""
        ...
