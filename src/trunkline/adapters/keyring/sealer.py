"""Seals with AES-256-GCM under data keys that a keyring's keys wrap (DESIGN section 8)."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trunkline.adapters.keyring.file import KEY_BYTES, Keyring
from trunkline.adapters.keyring.source import FileSource, KeyringSource, RandomBytes
from trunkline.core.envelope import (
    HEADER,
    WRAPPED_HEADER_BYTES,
    data_key_associated_data,
    is_bound,
    kek_of,
    wrapped_header,
)
from trunkline.core.member_macs import MAC_KEY_BYTES, MemberMacs
from trunkline.core.recent import Recent
from trunkline.errors import (
    ConversationShredded,
    KeyringBehind,
    KeyringWrong,
    SealBroken,
    TrunklineError,
)
from trunkline.model import Place, WorkerId

OPENED_CIPHERS: Final = 65_536
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NONCE_START: Final = len(HEADER)
_BODY_START: Final = _NONCE_START + _NONCE_BYTES
_BLOB_LEAST: Final = _BODY_START + _TAG_BYTES

_WRAP_LEAST: Final = WRAPPED_HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES
_UNBOUND_DATA_KEY: Final = b"trunkline data key"
_SENTINEL: Final = b"trunkline sentinel"
_SOME_UNBOUND: Final = b"\x00"
_ALL_BOUND: Final = b"\x01"
_DIGEST_KEY: Final = b"trunkline digest key"
_PACKET_KEY: Final = b"trunkline packet key "
_PACKET_FORMAT: Final = 1
_PACKET: Final = Struct(">BI4xQ")
"""Format and KEK id, then the nonce: four zero bytes and the counter; ciphertext follows."""
_PACKET_NONCE: Final = WRAPPED_HEADER_BYTES
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

    __slots__ = ("__weakref__", "_decrypt", "_encrypt", "_nonce", "digest_key", "seen_key")

    def __init__(self, data_key: bytes, nonces: Nonces) -> None:
        aead = AESGCM(data_key)
        self._encrypt = aead.encrypt
        self._decrypt = aead.decrypt
        self._nonce = nonces.take
        # Two blocks of one expansion (RFC 5869, section 2.3): who knows one learns nothing of
        # the other.
        derived = HKDF(SHA256(), 64, salt=None, info=_DIGEST_KEY).derive(data_key)
        self.digest_key: bytes = derived[:32]
        self.seen_key: bytes = derived[32:]

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

    __slots__ = ("_boot", "_count", "_keks", "_keys")

    def __init__(self, keks: "KeyEncryptionKeys", worker: WorkerId) -> None:
        self._keks = keks
        self._boot = worker.encode()
        self._keys: dict[int, AESGCM] = {}
        self._count = 0

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Returns header, nonce and ciphertext: 33 bytes more than the plaintext."""
        self._count += 1
        kek_id = self._keks.current
        header = _PACKET.pack(_PACKET_FORMAT, kek_id, self._count)
        return header + self._key(kek_id).encrypt(
            header[_PACKET_NONCE:], plaintext, header + associated_data
        )

    def open(self, blob: bytes, associated_data: bytes) -> bytes:
        """Returns the plaintext; raises `SealBroken`."""
        if len(blob) < _PACKET_LEAST:
            raise SealBroken
        header = blob[: _PACKET.size]
        packet_format, kek_id, _ = _PACKET.unpack(header)
        if packet_format != _PACKET_FORMAT:
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
            kek = self._keks.get(kek_id)
            if kek is None:
                raise SealBroken
            derived = HKDF(SHA256(), 32, salt=None, info=_PACKET_KEY + self._boot)
            key = self._keys[kek_id] = AESGCM(derived.derive(kek))
        return key


class KeyEncryptionKeys:
    """The keyring that counts now. A key that it lacks makes it be read again.

    Attributes:
        keyring: as it was last read.
    """

    def __init__(self, keyring: Keyring, read: Callable[[], Keyring] | None) -> None:
        self.keyring = keyring
        self._read = read
        self._agreed = 0

    @property
    def current(self) -> int:
        """Id of the key that new data keys are wrapped with."""
        return max(self.keyring.current, self._agreed)

    def get(self, kek_id: int) -> bytes | None:
        """The key of an id, read again if it is not known, or None."""
        if kek_id not in self.keyring.keys:
            with suppress(TrunklineError):
                self.refresh()
        return self.keyring.keys.get(kek_id)

    def refresh(self) -> None:
        """Reads the keyring again; what cannot be read leaves the old one, and raises."""
        if self._read is not None:
            self.keyring = self._read()

    def agree(self, kek_id: int) -> None:
        """From now on no older key wraps anything; raises `KeyringBehind` if it is not here."""
        if self.get(kek_id) is None:
            raise _behind(kek_id, self.keyring)
        self._agreed = max(self._agreed, kek_id)


class KeyringSealer:
    """A `ports.sealer.Sealer` over a keyring; keeps the ciphers used last opened.

    A wrapped key is: format (1 byte), KEK id (4 bytes, big endian), nonce (12), the data
    key encrypted under that KEK with the bytes before the nonce, and the conversation, as
    associated data. Keys of the first version's format lack the conversation; they open as
    long as the sentinel does not say that there are none left (`bound`).
    """

    def __init__(
        self,
        keyring: Keyring,
        random_bytes: RandomBytes = os.urandom,
        *,
        read: Callable[[], Keyring] | None = None,
        opened_ciphers: int = OPENED_CIPHERS,
        fresh: bool = True,
    ) -> None:
        """`read` reads the keyring again, where it may change while this runs. `fresh`: this is
        for a store that is only being made; else its sentinel tells what members' rows have.
        """
        self._keks = KeyEncryptionKeys(keyring, read)
        self._random_bytes = random_bytes
        self._nonces = Nonces(random_bytes)
        self._opened: Recent[tuple[bytes, Place], KeyringCipher] = Recent(opened_ciphers)
        self._bound = fresh
        self._macs = MemberMacs(random_bytes(MAC_KEY_BYTES) if fresh else b"")
        self._met_sentinel = False

    @property
    def keyring(self) -> Keyring:
        """The keyring as it was last read."""
        return self._keks.keyring

    @property
    def kek_id(self) -> int:
        """Id of the KEK that wraps new data keys."""
        return self._keks.current

    @property
    def macs(self) -> MemberMacs:
        """What members' rows are authenticated with; its key stands in the sentinel."""
        return self._macs

    @property
    def bound(self) -> bool:
        """Whether each data key is bound to its conversation, and each member's row has its MAC.

        Only a store of the first version says otherwise, until it was taken over.
        """
        return self._bound

    def all_bound(self) -> None:
        """From now on what is not bound is refused."""
        self._bound = self._macs.required = True

    def new_wrapped_key(self, place: Place) -> bytes:
        """A fresh random data key, wrapped with the current KEK: 65 bytes."""
        purpose = data_key_associated_data(place)
        return self._wrap(self._random_bytes(KEY_BYTES), purpose)

    def rewrapped(self, wrapped_key: bytes, place: Place) -> bytes:
        """The same data key, wrapped with the current KEK; raises as `cipher`."""
        data_key = self._data_key(wrapped_key, place)
        return self._wrap(data_key, data_key_associated_data(place))

    def cipher(self, wrapped_key: bytes, place: Place) -> KeyringCipher:
        """The cipher of a conversation's wrapped key; raises `KeyringWrong` if it does not
        unwrap or is another's, `KeyringBehind` if its KEK is not here, `ConversationShredded`
        if there is none.
        """
        found = self._opened.get((wrapped_key, place))
        if found is None:
            if not wrapped_key:
                raise ConversationShredded
            found = KeyringCipher(self._data_key(wrapped_key, place), self._nonces)
            self._opened.put((wrapped_key, place), found)
        return found

    def packet_cipher(self, worker: WorkerId) -> KeyringPacketCipher:
        """The cipher of what one boot of a worker publishes; its own it asks for once."""
        return KeyringPacketCipher(self._keks, worker)

    def refresh(self) -> None:
        """Reads the keyring again, and forgets ciphers not used since the last call.

        Raises `KeyringMissing` or `KeyringWrong` if that failed: the old keyring then stays.
        """
        self._opened.age()
        self._keks.refresh()

    def agree(self, sentinel: bytes) -> None:
        """Wraps with no older KEK than the one that this sentinel was made with.

        Raises `KeyringWrong` as `verify_sentinel`.
        """
        self.verify_sentinel(sentinel)
        self.advance(kek_of(sentinel))

    def advance(self, kek_id: int) -> None:
        """Wraps with no older KEK than this; raises `KeyringBehind` if it is not here."""
        self._keks.agree(kek_id)

    def sentinel(self) -> bytes:
        """A blob to keep beside the data: it tells at the next start whether the keyring is theirs.

        It is made when the data directory is made, and again when its KEK is replaced. It
        tells, too, with which key members' rows are authenticated, and whether all are bound.
        """
        told = _SENTINEL + (_ALL_BOUND if self.bound else _SOME_UNBOUND) + self._macs.key
        return self._wrap(told, _SENTINEL)

    def verify_sentinel(self, blob: bytes) -> None:
        """Takes over what a sentinel tells; raises `KeyringWrong` if this keyring did not make it.

        What was bound stays so while this runs, whatever a later sentinel says.
        """
        told = self._unwrap(blob, _SENTINEL)
        flag, key = told[len(_SENTINEL) :][:1], told[len(_SENTINEL) + 1 :]
        if not told.startswith(_SENTINEL) or len(key) not in (0, MAC_KEY_BYTES):
            raise KeyringWrong
        self._macs.key = key or self._macs.key or self._random_bytes(MAC_KEY_BYTES)
        stays = self._met_sentinel and self._bound
        self._bound = self._macs.required = stays or flag == _ALL_BOUND
        self._met_sentinel = True

    def _wrap(self, plaintext: bytes, purpose: bytes) -> bytes:
        current = self._keks.current
        header = wrapped_header(current)
        nonce = self._random_bytes(_NONCE_BYTES)
        kek = self._keks.get(current)
        if kek is None:
            raise _behind(current, self.keyring)
        return header + nonce + AESGCM(kek).encrypt(nonce, plaintext, header + purpose)

    def _data_key(self, wrapped_key: bytes, place: Place) -> bytes:
        if is_bound(wrapped_key):
            return self._unwrap(wrapped_key, data_key_associated_data(place))
        if self.bound:
            raise KeyringWrong(
                "A wrapped key is not bound to its conversation, though all were: it was put there."
            )
        return self._unwrap(wrapped_key, _UNBOUND_DATA_KEY)

    def _unwrap(self, blob: bytes, purpose: bytes) -> bytes:
        if len(blob) < _WRAP_LEAST:
            raise KeyringWrong("A wrapped key is too short to be one.")
        header, rest = blob[:WRAPPED_HEADER_BYTES], blob[WRAPPED_HEADER_BYTES:]
        kek_id = kek_of(blob)
        if not kek_id:
            raise KeyringWrong("A wrapped key is of another format than this version's.")
        kek = self._keks.get(kek_id)
        if kek is None:
            behind = _behind(kek_id, self.keyring)
            raise KeyringWrong(behind.detail) if purpose == _SENTINEL else behind
        try:
            return AESGCM(kek).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + purpose)
        except InvalidTag:
            raise KeyringWrong(
                f"Key {kek_id} of {self.keyring.place} is not the one that the data was sealed "
                "with, or this wrapped key belongs to something else."
            ) from None


def _behind(kek_id: int, keyring: Keyring) -> KeyringBehind:
    return KeyringBehind(
        f"The data was sealed with key {kek_id}, which {keyring.place} does not hold: copy the "
        "newest keyring here."
    )


def open_sealer_of(
    source: KeyringSource, *, create: bool, random_bytes: RandomBytes = os.urandom
) -> KeyringSealer:
    """The sealer over a source's keyring; raises `KeyringMissing`, `KeyringWrong`.

    With `create` the store is only being made, and a keyring file (mode 0600) where there is
    none. What the start should tell stands in `.keyring`.
    """
    keyring = source.read(create=create)
    return KeyringSealer(keyring, random_bytes, read=source.read, fresh=create)


def open_keyring(path: Path, create: bool, random_bytes: RandomBytes = os.urandom) -> KeyringSealer:
    """Opens a keyring file, or with `create` makes one (mode 0600) where there is none.

    Raises as `open_sealer_of`.
    """
    source = FileSource(path, random_bytes)
    return open_sealer_of(source, create=create, random_bytes=random_bytes)
