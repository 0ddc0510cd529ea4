"""Sealer whose key-encryption keys stand in a keyring file (DESIGN section 8)."""

from trunkline.adapters.keyring.file import Keyring, read_keyring
from trunkline.adapters.keyring.sealer import KeyringSealer, RandomBytes, open_keyring

__all__ = ["Keyring", "KeyringSealer", "RandomBytes", "open_keyring", "read_keyring"]
