"""The shapes of opened keys, as decisions use them."""

from typing import Protocol


class Cipher(Protocol):
    """The opened data key of one conversation."""

    @property
    def digest_key(self) -> bytes:
        """32 bytes, derived from the data key; endpoints get it with the conversation."""
        ...

    @property
    def seen_key(self) -> bytes:
        """32 bytes, derived likewise, of which nobody is told: for proofs of what was shown."""
        ...

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext."""
        ...

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken` if anything was changed or moved."""
        ...


class PacketCipher(Protocol):
    """The key of what one boot of a worker sends to others."""

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext; the nonce counts up."""
        ...

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken` if anything was changed or moved, or if
        it was sealed with a key that is not at hand.
        """
        ...
