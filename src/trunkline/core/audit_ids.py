"""Decides whether idempotency rows and entries point at each other (I6)."""

from collections.abc import Iterator, Sequence

from trunkline.core.audit_walk import Walk
from trunkline.core.auditing import Problem
from trunkline.model import ClientMessageId, Conversation, Seq, UserId

KEPT_MS = 7 * 86_400_000
"""For so long after an entry its client message id is known (I6)."""

KnownRow = tuple[UserId, ClientMessageId, Seq]


class KnownIdsCheck:
    """One conversation's idempotency rows against its entries.

    A row must name an entry of its sender and, where the hot tier still has the entry, of
    its client message id; an entry has one row at most, and one as long as it is young.
    """

    def __init__(self, conversation: Conversation, walk: Walk, *, now_ms: int) -> None:
        self._head = conversation.head
        self._shredded = conversation.shredded
        self._walk = walk
        self._now_ms = now_ms
        self._claimed: set[Seq] = set()

    def take(self, rows: Sequence[KnownRow]) -> Iterator[Problem]:
        """The next rows."""
        walk = self._walk
        for sender, client_message_id, seq in rows:
            if seq in self._claimed:
                yield "known_id_double", f"Two client message ids name entry {seq}."
            self._claimed.add(seq)
            hot = walk.client_ids.get(seq)
            if not 1 <= seq <= self._head:
                yield "known_id_wrong", f"A client message id of {sender!r} names entry {seq}."
            elif hot is not None and hot[0] != client_message_id:
                yield "known_id_wrong", f"Entry {seq} has not the client message id of its row."
            else:
                writer = walk.sender_of(seq)
                if writer is None:
                    # The segments of a shredded conversation do not tell who wrote what.
                    if not self._shredded:
                        what = f"A client message id names entry {seq}, which is lost."
                        yield "known_id_wrong", what
                elif writer != sender:
                    yield "known_id_wrong", f"Entry {seq} is not of {sender!r}, as its id says."

    def end(self) -> Iterator[Problem]:
        """No more rows."""
        young_ms = self._now_ms - KEPT_MS
        for seq, (client_message_id, time_ms) in self._walk.client_ids.items():
            if client_message_id and time_ms > young_ms and seq not in self._claimed:
                yield "known_id_missing", f"The client message id of entry {seq} is forgotten."
