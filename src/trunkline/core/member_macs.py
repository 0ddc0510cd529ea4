"""Whether a member's row is one that Trunkline wrote: its MAC, under a key that no store holds.

Who can write a store, but has no key, cannot make himself a member, nor widen a view. The read
marker is not covered: it tells nobody anything, and moves without a decision.
"""

from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

import msgspec

from trunkline.core.digest import to_bytes
from trunkline.errors import KeyringBehind
from trunkline.model import ConversationKey, Member

MAC_KEY_BYTES: Final = 32
MAC_BYTES: Final = 16
_ROW: Final = Struct(">QQQQQ16s16s")


class MemberMacs:
    """Makes and checks MACs: BLAKE2b-128, keyed (RFC 7693), over all that a view depends on.

    Attributes:
        key: 32 bytes, one for the whole store and for as long as it lives; empty until this
            process has learnt it.
        required: whether rows are checked; not while a store of the first version is taken
            over, which has none.
    """

    __slots__ = ("key", "required")

    def __init__(self, key: bytes, *, required: bool = True) -> None:
        self.key = key
        self.required = required

    def of(self, key: ConversationKey, member: Member) -> bytes:
        """The MAC of a member of the conversation: 16 bytes.

        Raises `KeyringBehind` (retryable) before the key is known.
        """
        if not self.key:
            raise KeyringBehind("The key of members' rows was not learnt from the store yet.")
        row = _ROW.pack(
            key, member.visible_from, member.countable_before, member.left_at,
            member.left_countable, to_bytes(member.digest_before), to_bytes(member.left_digest),
        )  # fmt: skip
        return blake2b(row + member.user.encode(), digest_size=MAC_BYTES, key=self.key).digest()

    def seal(self, key: ConversationKey, member: Member) -> Member:
        """The same with its MAC."""
        return msgspec.structs.replace(member, mac=self.of(key, member))

    def hold(self, key: ConversationKey, member: Member) -> bool:
        """Whether the member's row is as it was written."""
        return not self.required or compare_digest(member.mac, self.of(key, member))
