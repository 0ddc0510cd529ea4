"""What crosses from one worker to another, and how its receiver sees that something is missing.

A packet is an envelope that names its publisher and counts; what it holds is sealed (I12).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

import msgspec

from trunkline.core.appending import ConversationWrite, MembershipBody
from trunkline.model import (
    MEMBERSHIP_KINDS,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Entry,
    Kind,
    Seq,
    UserId,
    WorkerId,
)

_FEW_ENTRIES: Final = 8
"""So many stay within any bound: they are one frame."""
_FRAME_CHARACTERS: Final = 64 * 1024
_PUBLISHERS_REMEMBERED: Final = 4_096
_PLACE: Final = Struct(">QHH")


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A finished push frame: entries first..last of a conversation.

    `version` is the membership version after its last entry. If that entry changed the
    membership, `change` is its kind and `users` are those whom it names. `data` is the
    frame in MessagePack, as it is written to sockets.
    """

    key: ConversationKey
    conversation: ConversationId
    version: int
    first: Seq
    last: Seq
    data: bytes
    change: Kind | None = None
    users: tuple[UserId, ...] = ()

    @property
    def audience(self) -> int:
        """The membership version that its entries were written under."""
        return self.version - (self.change is not None)


class Note(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Something of a conversation changed for these users.

    `membership`: they became members, or are no more. Otherwise a marker moved.
    """

    key: ConversationKey
    conversation: ConversationId
    users: tuple[UserId, ...]
    membership: bool


class Told(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The conversation's head is at least this, and so is its membership version."""

    key: ConversationKey
    conversation: ConversationId
    head: Seq
    version: int

    @classmethod
    def of(cls, row: Conversation) -> "Told":
        """What a conversation's row tells."""
        return cls(row.key, row.id, row.head, row.membership_version)


class Packet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one worker has for another. `everything`: compare all heads and lists.

    One that holds nothing is a beat: it repeats the number of the last that held something.
    """

    frames: list[Frame] = []
    notes: list[Note] = []
    told: list[Told] = []
    everything: bool = False


class Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`number` counts the publisher's packets to this inbox, 1, 2, 3 …; `sealed` is a `Packet`."""

    publisher: WorkerId
    number: int
    sealed: bytes


encode_packet = msgspec.msgpack.Encoder().encode
decode_packet = msgspec.msgpack.Decoder(Packet).decode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
"""Both raise `msgspec.MsgspecError` for anything else."""
membership_of = msgspec.json.Decoder(MembershipBody).decode
"""The users whom the body of a membership entry names."""


def packet_associated_data(publisher: WorkerId, receiver: WorkerId, number: int) -> bytes:
    """What a sealed packet is bound to: it opens in no other inbox and under no other number."""
    publisher_bytes, receiver_bytes = publisher.encode(), receiver.encode()
    place = _PLACE.pack(number, len(publisher_bytes), len(receiver_bytes))
    return place + publisher_bytes + receiver_bytes


class Numbers:
    """Counts what arrives from each publisher."""

    def __init__(self) -> None:
        self._last: OrderedDict[WorkerId, int] = OrderedDict()

    def take(self, publisher: WorkerId, number: int, *, beat: bool) -> bool:
        """Returns whether nothing of this publisher is missing before this packet, or, after
        a beat, up to it.
        """
        last = self._last.get(publisher, 0)
        self._last[publisher] = number
        self._last.move_to_end(publisher)
        if len(self._last) > _PUBLISHERS_REMEMBERED:
            self._last.popitem(last=False)
        return number == last + (not beat)

    def publishers(self) -> list[WorkerId]:
        """Those heard of, longest silent first."""
        return list(self._last)


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Entries of a write that stand in one push frame, see `Frame`."""

    version: int
    entries: list[Entry]
    change: Kind | None = None
    users: tuple[UserId, ...] = ()

    def first_watchers(self, conversation: Conversation) -> Sequence[UserId]:
        """Who is pushed the first entry of a conversation: who made it, and the two of a single
        one. The members of a group did not ask for it: what names a thousand of them would be
        sent to each.
        """
        if self.change is not Kind.CREATED:
            return ()
        return self.users if conversation.kind is ConversationKind.SINGLE else self.users[:1]

    def told(self, conversation: Conversation) -> Sequence[UserId]:
        """Who is to sync, since the entry concerns them and they are not pushed it, or because
        it ends their view.
        """
        if self.change is not Kind.CREATED:
            return self.users
        return () if conversation.kind is ConversationKind.SINGLE else self.users[1:]


def cuts(write: ConversationWrite) -> Iterator[Cut]:
    """A write's entries as the frames in which they are pushed.

    An entry that changes the membership ends a frame, so that nobody is sent what lies
    outside their view (I13); no frame is too large for a reader's bound.
    """
    entries = write.opened
    version = write.conversation.membership_version
    if not write.members:
        yield from (Cut(version, part) for part in _parts(entries))
        return
    version -= sum(entry.kind in MEMBERSHIP_KINDS for entry in entries)
    start = 0
    for position, entry in enumerate(entries):
        if entry.kind not in MEMBERSHIP_KINDS:
            continue
        if position > start:
            yield from (Cut(version, part) for part in _parts(entries[start:position]))
        start = position + 1
        version += 1
        yield Cut(version, [entry], entry.kind, membership_of(entry.body).users)
    if start < len(entries):
        yield from (Cut(version, part) for part in _parts(entries[start:]))


def _parts(entries: list[Entry]) -> Sequence[list[Entry]]:
    """The entries in frames that no reader's bound is too small for."""
    if len(entries) <= _FEW_ENTRIES:
        return (entries,) if entries else ()
    return list(_bounded(entries))


def _bounded(entries: list[Entry]) -> Iterator[list[Entry]]:
    start = size = 0
    for position, entry in enumerate(entries):
        size += len(entry.body)
        if size > _FRAME_CHARACTERS and position > start:
            yield entries[start:position]
            start, size = position, len(entry.body)
    yield entries[start:]
