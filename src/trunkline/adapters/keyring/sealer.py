"""Seals with AES-256-GCM under data keys that a keyring's keys wrap (DESIGN section 8)."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trunkline.adapters.keyring.file import KEY_BYTES, Keyring, make_keyring, read_keyring
from trunkline.core.envelope import HEADER
from trunkline.errors import KeyringMissing, KeyringWrong, SealBroken
from trunkline.model import WorkerId

RandomBytes = Callable[[int], bytes]
"""Returns that many bytes which nobody can foresee: `os.urandom`, or a simulator's."""

OPENED_CIPHERS: Final = 65_536
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NONCE_START: Final = len(HEADER)
_BODY_START: Final = _NONCE_START + _NONCE_BYTES
_BLOB_LEAST: Final = _BODY_START + _TAG_BYTES

_WRAP_FORMAT: Final = 1
_WRAP: Final = Struct(">BI")
"""Format and KEK id; nonce and ciphertext follow."""
_WRAP_LEAST: Final = _WRAP.size + _NONCE_BYTES + _TAG_BYTES
_DATA_KEY: Final = b"trunkline data key"
_SENTINEL: Final = b"trunkline sentinel"
_DIGEST_KEY: Final = b"trunkline digest key"
_PACKET_KEY: Final = b"trunkline packet key "
_PACKET: Final = Struct(">BI4xQ")
"""Format and KEK id, then the nonce: four zero bytes and the counter; ciphertext follows."""
_PACKET_NONCE: Final = 5
_PACKET_LEAST: Final = _PACKET.size + _TAG_BYTES


_NONCES_AT_ONCE: Final = 256


class Nonces:
    """Random nonces, drawn from the source in bulk: a system call each is a fifth of a send.

    No nonce is handed out twice. A forked child must not go on with its parent's.
    """

    __slots__ = ("_ready", "_source")

    def __init__(self, source: RandomBytes) -> None:
        self._source = source
        self._ready: list[bytes] = []

    def take(self) -> bytes:
        """The next nonce, 12 bytes."""
        if not self._ready:
            drawn = self._source(_NONCES_AT_ONCE * _NONCE_BYTES)
            self._ready = [
                drawn[at : at + _NONCE_BYTES] for at in range(0, len(drawn), _NONCE_BYTES)
            ]
        return self._ready.pop()


class KeyringCipher:
    """The opened data key of one conversation: a `core.sealing.Cipher`.

    A sealed blob is `envelope.HEADER`, a random 12-byte nonce, the ciphertext with its
    16-byte tag. Random nonces allow 2^32 blobs a key (NIST SP 800-38D, section 8.3).
    """

    __slots__ = ("_decrypt", "_encrypt", "_nonce", "digest_key")

    def __init__(self, data_key: bytes, nonces: Nonces) -> None:
        aead = AESGCM(data_key)
        self._encrypt = aead.encrypt
        self._decrypt = aead.decrypt
        self._nonce = nonces.take
        self.digest_key: bytes = HKDF(SHA256(), 32, salt=None, info=_DIGEST_KEY).derive(data_key)

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext: 30 bytes more than the plaintext."""
        nonce = self._nonce()
        return HEADER + nonce + self._encrypt(nonce, plaintext, associated_data)

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken` if anything was changed or moved."""
        if blob[:_NONCE_START] != HEADER or len(blob) < _BLOB_LEAST:
            raise SealBroken
        try:
            return self._decrypt(
                blob[_NONCE_START:_BODY_START], blob[_BODY_START:], associated_data
            )
        except InvalidTag:
            raise SealBroken from None


class KeyringPacketCipher:
    """The subkeys of one boot of a worker: a `core.sealing.PacketCipher`.

    A subkey is derived from a KEK by HKDF with the boot id, which no other boot has; so its
    nonces need only count. Packets sealed before and after a rotation open alike.
    """

    __slots__ = ("_boot", "_count", "_keyring", "_keys")

    def __init__(self, keyring: Keyring, worker: WorkerId) -> None:
        self._keyring = keyring
        self._boot = worker.encode()
        self._keys: dict[int, AESGCM] = {}
        self._count = 0

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext: 33 bytes more than the plaintext."""
        self._count += 1
        kek_id = self._keyring.current
        header = _PACKET.pack(_WRAP_FORMAT, kek_id, self._count)
        return header + self._key(kek_id).encrypt(
            header[_PACKET_NONCE:], plaintext, header + associated_data
        )

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken`."""
        if len(blob) < _PACKET_LEAST:
            raise SealBroken
        header = blob[: _PACKET.size]
        packet_format, kek_id, _ = _PACKET.unpack(header)
        if packet_format != _WRAP_FORMAT or kek_id not in self._keyring.keys:
            raise SealBroken
        try:
            return self._key(kek_id).decrypt(
                header[_PACKET_NONCE:], blob[_PACKET.size :], header + associated_data
            )
        except InvalidTag:
            raise SealBroken from None

    def _key(self, kek_id: int) -> AESGCM:
        key = self._keys.get(kek_id)
        if key is None:
            derived = HKDF(SHA256(), 32, salt=None, info=_PACKET_KEY + self._boot)
            key = self._keys[kek_id] = AESGCM(derived.derive(self._keyring.keys[kek_id]))
        return key


class KeyringSealer:
    """A `ports.sealer.Sealer` over a keyring; keeps the ciphers used last opened.

    A wrapped key is: format (1 byte), KEK id (4 bytes, big endian), nonce (12), the data
    key encrypted under that KEK with the bytes before the nonce as associated data.
    """

    def __init__(
        self,
        keyring: Keyring,
        random_bytes: RandomBytes = os.urandom,
        *,
        opened_ciphers: int = OPENED_CIPHERS,
    ) -> None:
        self.keyring = keyring
        self._random_bytes = random_bytes
        self._nonces = Nonces(random_bytes)
        self._keks = {kek_id: AESGCM(key) for kek_id, key in keyring.keys.items()}
        self._cached_cipher = lru_cache(maxsize=opened_ciphers)(self._open_cipher)

    def new_wrapped_key(self) -> bytes:
        """A fresh random data key, wrapped with the current KEK: 65 bytes."""
        return self._wrap(self._random_bytes(KEY_BYTES), _DATA_KEY)

    def cipher(self, wrapped_key: bytes) -> KeyringCipher:
        """The cipher of a wrapped key; raises `KeyringWrong` if it does not unwrap."""
        return self._cached_cipher(wrapped_key)

    def packet_cipher(self, worker: WorkerId) -> KeyringPacketCipher:
        """The cipher of what one boot of a worker publishes; its own it asks for once."""
        return KeyringPacketCipher(self.keyring, worker)

    def sentinel(self) -> bytes:
        """A blob to keep beside the data: it tells at the next start whether the keyring is theirs.

        It is made when the data directory is made, and by the current KEK; a keyring that
        was rotated still holds that one.
        """
        return self._wrap(_SENTINEL, _SENTINEL)

    def verify_sentinel(self, blob: bytes) -> None:
        """Raises `KeyringWrong` if `blob` is not a sentinel that this keyring made."""
        if self._unwrap(blob, _SENTINEL) != _SENTINEL:
            raise KeyringWrong

    def _open_cipher(self, wrapped_key: bytes) -> KeyringCipher:
        return KeyringCipher(self._unwrap(wrapped_key, _DATA_KEY), self._nonces)

    def _wrap(self, plaintext: bytes, purpose: bytes) -> bytes:
        current = self.keyring.current
        header = _WRAP.pack(_WRAP_FORMAT, current)
        nonce = self._random_bytes(_NONCE_BYTES)
        return header + nonce + self._keks[current].encrypt(nonce, plaintext, header + purpose)

    def _unwrap(self, blob: bytes, purpose: bytes) -> bytes:
        if len(blob) < _WRAP_LEAST:
            raise KeyringWrong("A wrapped key is too short to be one.")
        header, rest = blob[: _WRAP.size], blob[_WRAP.size :]
        wrap_format, kek_id = _WRAP.unpack(header)
        kek = self._keks.get(kek_id)
        if wrap_format != _WRAP_FORMAT or kek is None:
            raise KeyringWrong(
                f"The data was sealed with key {kek_id} (format {wrap_format}), which "
                f"{self.keyring.path} does not hold."
            )
        try:
            return kek.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + purpose)
        except InvalidTag:
            raise KeyringWrong(
                f"Key {kek_id} of {self.keyring.path} is not the one that the data was sealed with."
            ) from None


def open_keyring(path: Path, create: bool, random_bytes: RandomBytes = os.urandom) -> KeyringSealer:
    """Opens a keyring file, or with `create` makes one (mode 0600) where there is none.

    Raises `KeyringMissing` if it is not there or not readable, `KeyringWrong` if the file
    is not a keyring. What the start should tell stands in `.keyring`.
    """
    try:
        keyring = read_keyring(path)
    except KeyringMissing:
        if not create or path.exists():
            raise
        keyring = make_keyring(path, random_bytes)
    return KeyringSealer(keyring, random_bytes)
