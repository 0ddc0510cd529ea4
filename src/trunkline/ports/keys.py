"""WrappedKeys and KeyAgreement: what changing keys asks of the store (DESIGN section 8)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from trunkline.core.member_macs import MemberMacs
from trunkline.model import Conversation, ConversationId


class WrappedKeys(Protocol):
    """The wrapped keys in the conversations' rows of the hot store.

    Raises as a HotStore. All of it may run beside appends: each change takes the row's lock.
    """

    async def counts(self) -> Mapping[str, Mapping[int, int]]:
        """Per database: conversations by the id of the KEK that wraps them; 0: shredded."""
        ...

    def wrapped_otherwise(self, kek_id: int) -> AsyncIterator[Sequence[Conversation]]:
        """Rows that another KEK wraps and that are not shredded, in runs of bounded size."""
        ...

    async def rewrap(
        self, changes: Sequence[tuple[Conversation, bytes]], macs: MemberMacs | None = None
    ) -> Sequence[Conversation]:
        """Puts new wrapped keys into rows whose wrapped key still is the one given with them.

        With `macs` all their members' rows get a MAC, as they stand then. Returns the
        conversations' rows as they stand then, without those that are gone.
        """
        ...

    async def find(self, conversation: ConversationId) -> Conversation | None:
        """The conversation's row."""
        ...

    async def shred(self, conversation: Conversation) -> None:
        """Empties the wrapped key and the sealed name, and ends the archive task.

        The version of every member's list rises, so that each endpoint's next sync tells.
        """
        ...


class KeyAgreement(Protocol):
    """What all processes of a deployment agree on about their keyring."""

    async def sentinel(self) -> bytes:
        """What the deployment's current KEK sealed, to tell a keyring by; empty: none yet."""
        ...

    async def agree(self, old: bytes, new: bytes) -> bytes:
        """Replaces the sentinel, if it still is `old`; returns the one that stands then."""
        ...

    async def fence(self, kek_id: int) -> None:
        """From when it returns, no conversation is created under an older KEK than this."""
        ...
