"""Sealer whose key-encryption keys stand in a keyring (DESIGN section 8)."""

from trunkline.adapters.keyring.file import Keyring, read_keyring
from trunkline.adapters.keyring.sealer import (
    KeyringSealer,
    open_keyring,
    open_sealer_of,
)
from trunkline.adapters.keyring.source import KeyringSource, RandomBytes, keyring_source, new_key

__all__ = [
    "Keyring",
    "KeyringSealer",
    "KeyringSource",
    "RandomBytes",
    "keyring_source",
    "new_key",
    "open_keyring",
    "open_sealer_of",
    "read_keyring",
]
