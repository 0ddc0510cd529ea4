"""Sealer: encryption at rest, one data key a conversation (DESIGN section 8)."""

from typing import Protocol

from trunkline.core.member_macs import MemberMacs
from trunkline.core.sealing import Cipher, PacketCipher
from trunkline.model import Place, WorkerId


class Sealer(Protocol):
    """Wraps a data key per conversation with a versioned key-encryption key (KEK).

    A wrapped key begins as `core.envelope.wrapped_header` says. KEKs may be added and retired
    while it runs; it takes them over when it meets one that it does not know, and at `refresh`.
    """

    @property
    def kek_id(self) -> int:
        """Id of the KEK that wraps new data keys; it only rises."""
        ...

    @property
    def macs(self) -> MemberMacs:
        """What members' rows are authenticated with, over all processes of a deployment."""
        ...

    def new_wrapped_key(self, place: Place) -> bytes:
        """A fresh random data key, wrapped for one conversation."""
        ...

    def cipher(self, wrapped_key: bytes, place: Place) -> Cipher:
        """The cipher of a conversation's wrapped key; raises `KeyringWrong` if it does not
        unwrap or is another conversation's, `KeyringBehind` if its KEK is not here,
        `ConversationShredded` if it is empty.
        """
        ...

    def rewrapped(self, wrapped_key: bytes, place: Place) -> bytes:
        """The same data key, wrapped with the current KEK; raises as `cipher`."""
        ...

    def refresh(self) -> None:
        """Takes over what KEKs there are now, and forgets the data keys that were not used
        since the last call. Raises `KeyringMissing` or `KeyringWrong` if the KEKs cannot be
        had: the old ones then stay.
        """
        ...

    def packet_cipher(self, worker: WorkerId) -> PacketCipher:
        """The cipher of what one boot of a worker publishes (I12): every worker with the
        same keyring opens what another sealed.

        A worker asks for its own once a boot: its nonces count from 1 in each.
        """
        ...
