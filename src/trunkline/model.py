"""The words of the design as frozen types; ids are NewTypes, so that one is never another."""

from enum import StrEnum
from typing import NewType

import msgspec

UserId = NewType("UserId", str)
EndpointId = NewType("EndpointId", str)
ConversationId = NewType("ConversationId", str)
ClientMessageId = NewType("ClientMessageId", str)
ConversationKey = NewType("ConversationKey", int)
"""64 bits: the top 10 are the shard, the rest random."""
WorkerId = NewType("WorkerId", str)
"""A worker's boot id: new at each start, never used again."""
Seq = NewType("Seq", int)
"""Position in a conversation: 1, 2, 3 … contiguous. 0 means before the first entry."""
Digest = NewType("Digest", int)
"""Sum of entry hashes modulo 2^128."""

Place = NewType("Place", str)
"""What a wrapped data key is bound to: the conversation's key and id."""

NO_SEQ = Seq(0)
NOBODY = UserId("")
"""The sender of `lost` entries."""
NO_DIGEST = Digest(0)


def place_of(key: ConversationKey, conversation: ConversationId) -> Place:
    """The place of a conversation in the store: one row, under one name."""
    return Place(f"{key:016x}:{conversation}")


class ConversationKind(StrEnum):
    """`single` has two members for ever, `group` has members that come and go."""

    SINGLE = "single"
    GROUP = "group"


class Kind(StrEnum):
    """What an entry is. Only a `message` counts as unread.

    `lost` stands where the store lost what was there: its `seq` was shown to somebody.
    """

    MESSAGE = "message"
    CREATED = "created"
    JOINED = "joined"
    LEFT = "left"
    RENAMED = "renamed"
    LOST = "lost"


MEMBERSHIP_KINDS = frozenset({Kind.CREATED, Kind.JOINED, Kind.LEFT})
"""Entries that change who is a member."""

TEXT = "text/plain"
JSON = "application/json"


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry as a member sees it. `time_ms` is the server's clock, display only."""

    seq: Seq
    sender: UserId
    time_ms: int
    body: str
    kind: Kind = Kind.MESSAGE
    content_type: str = TEXT
    refers_to: Seq = NO_SEQ


class StoredEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry as the hot and cached tiers hold it: body sealed.

    `countable` is the running count of messages up to and with this entry, `digest` the
    running digest likewise (16 bytes, big endian), `entry_hash` its own term of it.
    """

    seq: Seq
    sender: UserId
    client_message_id: ClientMessageId
    kind: Kind
    time_ms: int
    refers_to: Seq
    countable: int
    entry_hash: bytes
    digest: bytes
    sealed: bytes


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """The conversation's row. A new conversation has head 0 until its first entry."""

    key: ConversationKey
    id: ConversationId
    kind: ConversationKind
    wrapped_key: bytes
    head: Seq = NO_SEQ
    countable: int = 0
    digest: Digest = NO_DIGEST
    archived_up_to: Seq = NO_SEQ
    trimmed_up_to: Seq = NO_SEQ
    membership_version: int = 0
    member_count: int = 0
    sealed_name: bytes = b""

    @property
    def place(self) -> Place:
        """What its wrapped key is bound to."""
        return place_of(self.key, self.id)

    @property
    def shredded(self) -> bool:
        """Whether its wrapped key was destroyed, and all its bodies with it: for ever."""
        return not self.wrapped_key

    @property
    def to_be_archived(self) -> bool:
        """Whether hot holds what cold does not; without its key nothing can be copied."""
        return self.head > self.archived_up_to and not self.shredded


class Member(msgspec.Struct, frozen=True, gc=False):
    """A member's view and marker.

    The view is visible_from..head, or ..left_at once gone (`left_at` 0: still there).
    `digest_before` and `countable_before` are the running values at visible_from − 1,
    `left_digest` and `left_countable` those at left_at, so that digest and unread of a
    view are exact without reading entries. `mac` authenticates all but the marker
    (`core.member_macs`).
    """

    user: UserId
    visible_from: Seq
    digest_before: Digest = NO_DIGEST
    countable_before: int = 0
    left_at: Seq = NO_SEQ
    left_digest: Digest = NO_DIGEST
    left_countable: int = 0
    marker: Seq = NO_SEQ
    marker_countable: int = 0
    mac: bytes = b""

    def marked(self, seq: Seq, countable: int) -> "Member":
        """The same with the read marker at `seq`, where the running count is `countable`."""
        return Member(
            self.user, self.visible_from, self.digest_before, self.countable_before,
            self.left_at, self.left_digest, self.left_countable, seq, countable,
            self.mac,
        )  # fmt: skip


class UserConversation(msgspec.Struct, frozen=True, gc=False):
    """One line of a user's conversation list. `version` rises with every change of it."""

    conversation: ConversationId
    key: ConversationKey
    version: int


class FreshKey(msgspec.Struct, frozen=True, gc=False):
    """Random material for a conversation that an append may have to create."""

    key: ConversationKey
    wrapped_key: bytes


class Draft(msgspec.Struct, frozen=True, gc=False):
    """What someone asks to be appended, checked for form but not yet for right.

    `users` are those whom a membership entry names; `name` belongs to `created` and
    `renamed`. `fresh` is there where the append may create the conversation: for
    `created`, and for a message to a `single` one (then `users` holds its two members).
    `lost_up_to` belongs to `lost`: entries up to there were shown and are gone.
    """

    conversation: ConversationId
    sender: UserId
    client_message_id: ClientMessageId
    kind: Kind
    time_ms: int
    body: str = ""
    content_type: str = TEXT
    refers_to: Seq = NO_SEQ
    users: tuple[UserId, ...] = ()
    name: str | None = None
    fresh: FreshKey | None = None
    lost_up_to: Seq = NO_SEQ


class StoreLife(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which life of which store somebody talks to.

    `id`: of the store, 32 hex digits, made with it. `generation` rises whenever something that
    was shown may be gone. `mark`: 16 hex digits drawn with the generation, so that two copies of
    a store that both go on are told apart. `made_ms`: when the store was made, by its clock;
    0: not known.
    """

    id: str
    generation: int
    mark: str
    made_ms: int = 0


class MarkerMove(msgspec.Struct, frozen=True, gc=False):
    """A member has seen up to `seq`; `countable` is the running count there."""

    key: ConversationKey
    user: UserId
    seq: Seq
    countable: int


class OffsetMove(msgspec.Struct, frozen=True, gc=False):
    """An endpoint holds everything of its view up to `seq`."""

    key: ConversationKey
    user: UserId
    endpoint: EndpointId
    seq: Seq


class Segment(msgspec.Struct, frozen=True, gc=False):
    """A contiguous run of entries in the cold tier, compressed, then sealed as a whole.

    `digest` is the sum of its entry hashes.
    """

    key: ConversationKey
    first: Seq
    last: Seq
    digest: Digest
    sealed: bytes


class ColdMetadata(msgspec.Struct, frozen=True, gc=False):
    """What the cold tier must know of a conversation to be readable on its own."""

    conversation: Conversation
    members: tuple[Member, ...]
