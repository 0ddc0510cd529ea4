"""Decides whether a conversation's entries are what they should be, walking them 1..head.

First come the cold segments, then the rows of the hot tier. The walk recomputes what the
stores keep beside the entries: hashes, running digest and count, who is a member. What is
wrong is reported once and does not make everything behind it wrong too.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.appending import MembershipBody
from trunkline.core.auditing import Problem
from trunkline.core.bodies import unpack_body
from trunkline.core.envelope import entry_associated_data
from trunkline.core.sealing import Cipher
from trunkline.core.segments import OpenedSegment
from trunkline.errors import DataDamaged
from trunkline.model import (
    NO_DIGEST,
    ClientMessageId,
    Conversation,
    Digest,
    Kind,
    Segment,
    Seq,
    StoredEntry,
    UserId,
)

_UNKNOWN: Final = bytes(digests.DIGEST_BYTES)
_MASK: Final = (1 << 128) - 1
_decode_membership = msgspec.json.Decoder(MembershipBody).decode


class Running(msgspec.Struct, frozen=True, gc=False):
    """Count of messages and digest up to and with some entry."""

    countable: int
    digest: Digest


class History:
    """Who is a member and how the conversation is called, as its entries tell.

    `spans`: user → (visible_from, left_at or 0). `whole`: no entry that could change this
    was missing or unreadable.
    """

    def __init__(self) -> None:
        self.spans: dict[UserId, tuple[Seq, Seq]] = {}
        self.present: set[UserId] = set()
        self.version = 0
        self.name: str | None = None
        self.whole = True

    def take(self, seq: Seq, kind: Kind, body: str | None) -> None:
        """The next entry that is no message; `body` is None if it did not open."""
        if kind is Kind.LOST:
            return
        try:
            told = None if body is None else _decode_membership(body)
        except msgspec.MsgspecError:
            told = None
        if told is None:
            self.whole = False
        elif kind is Kind.RENAMED:
            self.name = told.name or ""
        elif kind is Kind.LEFT:
            self.version += 1
            for user in told.users:
                first, _ = self.spans.get(user, (Seq(0), Seq(0)))
                self.spans[user] = (first, seq)
                self.present.discard(user)
        else:
            self.version += 1
            for user in told.users:
                self.spans[user] = (seq, Seq(0))
                self.present.add(user)
            if kind is Kind.CREATED:
                self.name = told.name


class Walk:
    """One conversation's walk.

    Args:
        conversation: its row.
        cipher: its opened data key; without it contents are not looked at.
        checkpoints: positions whose running values are asked for later.

    After it, `running` holds the values at those checkpoints that could be computed, and
    `client_ids` the (client message id, time) of what the hot tier holds.
    """

    def __init__(
        self, conversation: Conversation, cipher: Cipher | None, checkpoints: Iterable[Seq]
    ) -> None:
        self.problems: list[Problem] = []
        self.history = History()
        self.running: dict[Seq, Running] = {Seq(0): Running(0, NO_DIGEST)}
        self.seq = Seq(0)
        self.client_ids: dict[Seq, tuple[ClientMessageId, int]] = {}
        self.entries = 0
        self.exact = True
        self.countable = 0
        self.digest: Digest = NO_DIGEST
        self._trimmed = conversation.trimmed_up_to
        self._archived = conversation.archived_up_to
        self._checkpoints = set(checkpoints)
        self._id_bytes = conversation.id.encode()
        self._cipher = cipher
        key = cipher.digest_key if cipher is not None else b""
        self._entry_hash = digests.hasher(conversation.id, key)
        self._cold_hashes = bytearray()
        self._covered = 0
        self._claims: list[tuple[Seq, int]] = []
        self._off = False
        self._users: dict[UserId, UserId] = {}
        self._starts: list[int] = []
        self._senders: list[list[UserId]] = []
        self._run_ends = Seq(0)

    def sender_of(self, seq: Seq) -> UserId | None:
        """The sender of an entry, or None if it is missing or did not open."""
        run = bisect_right(self._starts, seq) - 1
        if run < 0:
            return None
        position = seq - self._starts[run]
        senders = self._senders[run]
        return senders[position] if position < len(senders) else None

    # --- cold ---------------------------------------------------------------------------

    def take_segment(self, segment: Segment, part: OpenedSegment | None) -> None:
        """The next segment by first and last; `part` is None if it did not open."""
        if segment.first > self._covered + 1:
            self._uncovered(segment.first - 1)
        self._covered = max(self._covered, segment.last)
        if part is None:
            self._pass_unknown(min(segment.last, self._trimmed))
            return
        before = Seq(segment.first - 1)
        if before >= self.seq:
            self._claims.append((before, part.countable_before))
            self._checkpoints.add(before)
        if before == self.seq:
            self._note(before)
        self._keep_hashes(segment, part)
        for entry, entry_hash in zip(part.entries, part.hashes, strict=True):
            seq = entry.seq
            if self.seq < seq <= self._trimmed:
                self._pass_unknown(seq - 1)
                self._step(seq, entry.sender, entry.kind, entry_hash, entry.body)

    def _keep_hashes(self, segment: Segment, part: OpenedSegment) -> None:
        """Compares with what other segments said of the same entries, and keeps the rest."""
        size, kept = digests.DIGEST_BYTES, self._cold_hashes
        start = (segment.first - 1) * size
        if len(kept) <= start:
            kept.extend(bytes(start - len(kept)))
            kept.extend(b"".join(part.hashes))
            return
        kept.extend(bytes(max(0, segment.last * size - len(kept))))
        for seq, entry_hash in enumerate(part.hashes, segment.first):
            other = self._cold_hash(seq)
            if other == _UNKNOWN:
                kept[(seq - 1) * size : seq * size] = entry_hash
            elif other != entry_hash:
                self._report("content_differs", f"Overlapping segments differ in entry {seq}.")

    def end_cold(self) -> None:
        """No more segments: they must cover what is archived (I10)."""
        if self._covered < self._archived:
            self._uncovered(self._archived)
        self._pass_unknown(self._trimmed)

    def _uncovered(self, up_to: int) -> None:
        first, last = self._covered + 1, min(up_to, self._archived)
        if first > last:
            return
        self._report("cold_missing", f"No segment holds {first} to {last}, which is archived.")
        if first <= self._trimmed:
            last = min(last, self._trimmed)
            self._report("hole", f"Entries {first} to {last} are in no tier.")

    def _cold_hash(self, seq: int) -> bytes:
        start = (seq - 1) * digests.DIGEST_BYTES
        return bytes(self._cold_hashes[start : start + digests.DIGEST_BYTES]) or _UNKNOWN

    # --- hot ----------------------------------------------------------------------------

    def take_rows(self, rows: Sequence[StoredEntry]) -> None:
        """The next rows of the hot tier, by seq."""
        for row in rows:
            seq = row.seq
            if seq != self.seq + 1 and not self._skips_to(seq):
                continue
            body, entry_hash = self._open(row)
            cold = self._cold_hash(seq)
            if cold != entry_hash and cold != _UNKNOWN:
                self._report("content_differs", f"Entry {seq} is not the same in hot and cold.")
            if not self.exact:
                self._restart_at(row, entry_hash)
            self._step(seq, row.sender, row.kind, entry_hash, body)
            self.client_ids[seq] = (row.client_message_id, row.time_ms)
            if row.countable != self.countable or row.digest != digests.to_bytes(self.digest):
                self._differs(row)
            else:
                self._off = False

    def end_hot(self, conversation: Conversation) -> None:
        """No more rows: head and the running values of the conversation must be the last's."""
        if self.seq < conversation.head:
            self._report("hole", f"Head is {conversation.head}, but the last entry is {self.seq}.")
            self._pass_unknown(conversation.head)
        elif self.seq > conversation.head:
            self._report(
                "head_wrong", f"Head is {conversation.head}, but there is entry {self.seq}."
            )
        if self.exact:
            if self.countable != conversation.countable:
                self._report(
                    "countable_wrong",
                    f"The conversation counts {conversation.countable} messages, its entries "
                    f"are {self.countable}.",
                )
            if self.digest != conversation.digest:
                self._report("digest_wrong", "The conversation's digest is not its entries'.")
        for seq, countable in self._claims:
            running = self.running.get(seq)
            if running is not None and running.countable != countable:
                self._report(
                    "countable_wrong",
                    f"The segment after {seq} counts {countable} before it, not "
                    f"{running.countable}.",
                )

    def _skips_to(self, seq: Seq) -> bool:
        """Reports a row out of its place; whether the walk goes on with it."""
        if seq <= self._trimmed:
            self._report(
                "hot_range_wrong", f"Entry {seq} is hot, though {self._trimmed} is trimmed."
            )
            return False
        if seq <= self.seq:
            self._report("double", f"Entry {seq} is there twice.")
            return False
        missing = f"{self.seq + 1} to {seq - 1}" if seq - 1 > self.seq + 1 else f"{seq - 1}"
        self._report("hole", f"Before entry {seq} the hot tier lacks {missing}.")
        self._pass_unknown(seq - 1)
        return True

    def _open(self, row: StoredEntry) -> tuple[str | None, bytes]:
        """The row's body and the hash of its content, or the stored hash if it does not open."""
        if self._cipher is None:
            return None, row.entry_hash
        seq, sender, kind, time_ms, refers_to = (
            row.seq, row.sender, row.kind, row.time_ms, row.refers_to,
        )  # fmt: skip
        try:
            content_type, body = unpack_body(
                self._cipher.open(
                    row.sealed,
                    entry_associated_data(
                        self._id_bytes, seq, sender, row.client_message_id, kind, time_ms,
                        refers_to,
                    ),
                )
            )  # fmt: skip
        except (DataDamaged, struct.error):  # values that fit no row are none of ours
            self._report("seal_broken", f"Entry {seq} does not open as what its row says.")
            return None, row.entry_hash
        entry_hash = self._entry_hash(seq, sender, kind, time_ms, content_type, body, refers_to)
        if entry_hash != row.entry_hash:
            self._report("entry_hash_wrong", f"The hash of entry {seq} is not its content's.")
        return body, entry_hash

    def _restart_at(self, row: StoredEntry, entry_hash: bytes) -> None:
        """After a gap the row's own running values are believed."""
        stored = digests.from_bytes(row.digest)
        self.digest = digests.subtract(stored, digests.from_bytes(entry_hash))
        self.countable = row.countable - (row.kind is Kind.MESSAGE)
        self.exact = True
        self._off = False
        self._note(self.seq)

    def _differs(self, row: StoredEntry) -> None:
        """Reports running values that are off; believes the rows if it lasts."""
        if row.countable != self.countable:
            self._report(
                "countable_wrong",
                f"Entry {row.seq} says {row.countable} messages, they are {self.countable}.",
            )
        if row.digest != digests.to_bytes(self.digest):
            self._report("digest_wrong", f"The running digest at entry {row.seq} is wrong.")
        if self._off:
            self.digest = digests.from_bytes(row.digest)
            self.countable = row.countable
        self._off = not self._off

    # --- both ---------------------------------------------------------------------------

    def _step(
        self, seq: Seq, sender: UserId, kind: Kind, entry_hash: bytes, body: str | None
    ) -> None:
        self.entries += 1
        self.digest = Digest((self.digest + int.from_bytes(entry_hash, "big")) & _MASK)
        if kind is Kind.MESSAGE:
            self.countable += 1
            if sender not in self.history.present and self.history.whole:
                self._report("sender_no_member", f"The sender of entry {seq} was no member.")
        else:
            self.history.take(seq, kind, body)
        if not self._senders or seq != self._run_ends + 1:
            self._starts.append(seq)
            self._senders.append([])
        self._senders[-1].append(self._users.setdefault(sender, sender))
        self.seq = self._run_ends = seq
        if seq in self._checkpoints:
            self._note(seq)

    def _note(self, seq: Seq) -> None:
        if self.exact:
            self.running[seq] = Running(self.countable, self.digest)

    def _pass_unknown(self, up_to: int) -> None:
        """Goes over entries that are not there or do not open."""
        if up_to > self.seq:
            self.seq = Seq(up_to)
            self.exact = False
            self.history.whole = False

    def _report(self, code: str, what: str) -> None:
        self.problems.append((code, what))
