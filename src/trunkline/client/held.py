"""The state of one conversation's copy while the client runs."""

from collections.abc import Sequence
from typing import Final

from trunkline.client.policy import Behind
from trunkline.client.store import Copy
from trunkline.core.digest import from_bytes, hasher, to_bytes
from trunkline.model import (
    NO_DIGEST,
    ConversationId,
    ConversationKind,
    Digest,
    Entry,
    Kind,
    Seq,
    UserId,
)
from trunkline.wire.frames import Changed

_MASK = (1 << 128) - 1
_COUNTED_MAX: Final = 64


class Held:
    """A copy that moves.

    Besides what `Copy` says: `expected` is the server's digest at a seq not yet reached,
    `early` what came beyond a gap, `counted` the newest messages that count as unread,
    `live_after` the seq after which entries are news to this run of the client, `opened`
    whether the application has it open, `pulling` whether a pull of it is under way,
    `told_marker` the server's marker, `restored` whether the store was in another life,
    `healing` whether what is set apart of it is still to be compared with it.
    """

    __slots__ = (
        "conversation", "counted", "digest", "digest_key", "early", "entry_hash", "expected",
        "first", "head", "healing", "kind", "last", "last_time_ms", "left", "live_after",
        "mark_waits", "marker", "mismatches", "name", "opened", "proof", "proved", "pulling",
        "restored", "shredded", "stalls", "told_marker", "unread", "unread_at",
    )  # fmt: skip

    def __init__(
        self,
        conversation: ConversationId,
        kind: ConversationKind,
        first: Seq,
        last: Seq,
        digest: Digest,
        digest_key: bytes,
    ) -> None:
        self.conversation = conversation
        self.kind = kind
        self.first = first
        self.last = last
        self.digest = digest
        self.digest_key = digest_key
        self.entry_hash = hasher(conversation, digest_key)
        self.head = last
        self.marker = Seq(0)
        self.unread = 0
        self.unread_at = Seq(0)
        self.counted: list[Seq] = []
        self.mark_waits = False
        self.name: str | None = None
        self.left = False
        self.shredded = False
        self.last_time_ms = 0
        self.live_after = last
        self.expected: tuple[Seq, Digest] | None = None
        self.early: dict[Seq, Entry] | None = None
        self.mismatches = 0
        self.stalls = 0
        self.opened = False
        self.pulling = False
        self.told_marker = Seq(0)
        self.proved, self.proof = Seq(0), ""
        self.restored = False
        self.healing = False

    @classmethod
    def load(cls, copy: Copy) -> "Held":
        """From the local store."""
        held = cls(
            copy.conversation,
            copy.kind,
            copy.first,
            copy.last,
            from_bytes(copy.digest),
            copy.digest_key,
        )
        held.head, held.marker = copy.head, copy.marker
        held.unread, held.unread_at = copy.unread, copy.unread_at
        held.name, held.left, held.last_time_ms = copy.name, copy.left, copy.last_time_ms
        held.mark_waits, held.shredded = copy.mark_waits, copy.shredded
        held.proved, held.proof = copy.proved, copy.proof
        return held

    @classmethod
    def start(cls, change: Changed) -> "Held":
        """A copy that holds nothing yet."""
        return cls(
            change.conversation,
            change.kind,
            change.first,
            Seq(change.first - 1),
            NO_DIGEST,
            bytes.fromhex(change.digest_key),
        )

    def copy(self) -> Copy:
        """As the local store keeps it."""
        return Copy(
            self.conversation,
            self.kind,
            self.first,
            self.last,
            self.head,
            to_bytes(self.digest),
            self.digest_key,
            self.marker,
            self.unread,
            self.unread_at,
            self.name,
            self.left,
            self.last_time_ms,
            self.mark_waits,
            self.shredded,
            self.proved,
            self.proof,
        )

    @property
    def vector_seq(self) -> Seq:
        """The last contiguous seq held, 0 if nothing is held."""
        return self.last if self.last >= self.first else Seq(0)

    def behind(self) -> Behind:
        """What it lacks, for the policy."""
        missing = self.head - self.last
        return Behind(
            self.conversation, self.kind, missing, self.last_time_ms, self.unread, self.opened
        )

    @property
    def is_gone(self) -> bool:
        """Whether the store has lost it: what comes of it may be of another one."""
        return self.left and self.last < self.first

    def update(self, change: Changed) -> None:
        """Takes over what a sync says of the conversation, apart from entries."""
        self.kind, self.left = change.kind, change.left
        if not change.left:  # the name it had when the view ended is the last that it has here
            self.name = change.name
        self.head = change.head if change.left else max(change.head, self.last)
        self.told_marker = change.marker
        if change.marker < self.marker:
            # The server does not know of this endpoint's mark or send yet: its count is older
            # than ours, and what ours lacks is counted when it is pulled.
            return
        self.marker = change.marker
        # What was pushed after the server had counted.
        later = sum(seq > change.head for seq in self.counted)
        self.unread = change.unread + later
        self.unread_at = max(self.unread_at, change.head)

    def restart(self, first: Seq) -> None:
        """Holds nothing any more; the view begins at `first`."""
        self.first, self.last, self.digest = first, Seq(first - 1), NO_DIGEST
        self.early = None
        self.proved, self.proof = Seq(0), ""
        if self.restored:
            # What was seen may be another entry now: the server's marker counts, and what lies
            # behind it is counted when it is pulled.
            self.marker, self.mark_waits, self.unread = self.told_marker, False, 0
            self.unread_at = max(self.told_marker, self.last)
            self.counted = []

    def become(self, change: Changed) -> None:
        """Another conversation has the id: its hashes have another key."""
        self.digest_key = bytes.fromhex(change.digest_key)
        self.entry_hash = hasher(self.conversation, self.digest_key)

    def take(self, entries: list[Entry], user: UserId) -> None:
        """Adds entries last+1.. : digest, unread, last."""
        entry_hash, from_big = self.entry_hash, int.from_bytes
        total: int = self.digest
        for entry in entries:
            total += from_big(
                entry_hash(
                    entry.seq,
                    entry.sender,
                    entry.kind,
                    entry.time_ms,
                    entry.content_type,
                    entry.body,
                    entry.refers_to,
                ),
                "big",
            )
        self.count(entries, user)
        newest = entries[-1]
        self.digest = Digest(total & _MASK)
        self.last, self.last_time_ms = newest.seq, newest.time_ms

    def count(self, entries: Sequence[Entry], user: UserId) -> None:
        """Keeps unread exact over entries that follow on what was counted already."""
        counted = self.unread_at + 1 - entries[0].seq
        if not 0 <= counted < len(entries):
            return
        for entry in entries if not counted else entries[counted:]:
            if entry.kind is Kind.MESSAGE:
                if entry.sender == user:  # a send moves the sender's own marker
                    self.unread, self.marker = 0, entry.seq
                else:
                    self.unread += 1
                    self.counted.append(entry.seq)
        self.unread_at = entries[-1].seq
        if len(self.counted) > 2 * _COUNTED_MAX:
            del self.counted[:-_COUNTED_MAX]

    def keep_early(self, entries: Sequence[Entry], most: int) -> None:
        """Keeps entries beyond a gap, as far as there is room."""
        early = self.early = self.early if self.early is not None else {}
        for entry in entries:
            if len(early) >= most:
                return
            early[entry.seq] = entry

    def take_early(self) -> list[Entry]:
        """The early entries that now follow; what lies at or below `last` is forgotten."""
        early = self.early
        if not early:
            return []
        following: list[Entry] = []
        seq = Seq(self.last + 1)
        while (entry := early.pop(seq, None)) is not None:
            following.append(entry)
            seq = Seq(seq + 1)
        if following or min(early) < seq:
            self.early = {s: e for s, e in early.items() if s > seq} or None
        return following
