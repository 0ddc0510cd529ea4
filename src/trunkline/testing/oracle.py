"""Oracle: records every frame on the wires, and judges at the end what was promised by it.

It knows the protocol and the promises (I1 to I14), and nothing of the code under test.
"""

from typing import NamedTuple

import msgspec

from trunkline.core.digest import hash_entry, hasher, to_hex, total
from trunkline.model import ClientMessageId, ConversationId, Entry, Kind, Seq, UserId
from trunkline.testing.history import Broken, ConversationHistory, History
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import (
    Ack,
    Acked,
    Changed,
    Done,
    Error,
    Mark,
    Notice,
    Pull,
    Pulled,
    Push,
    Send,
    Synced,
)

Identity = tuple[UserId, ConversationId, ClientMessageId]


class Counts(msgspec.Struct):
    """How much a run made happen; a simulation in which nothing happens proves nothing."""

    pushed: int = 0
    pulled: int = 0
    acked: int = 0
    duplicates: int = 0
    pages: int = 0
    refused: int = 0


class _Asked(NamedTuple):
    """What of a pulled range is still to come; `floor`: what the server had shown by then."""

    after: int
    up_to: int
    floor: int


class _Answered(NamedTuple):
    """A pull without end was answered up to here, when entries up to `floor` were shown."""

    user: UserId
    conversation: ConversationId
    end: int
    floor: int


class Line:
    """One connection as the oracle sees it: which user, what was asked and answered on it."""

    def __init__(self, oracle: "Oracle", user: UserId, encoding: Encoding) -> None:
        self._oracle = oracle
        self._user = user
        self._encoding = encoding
        self._marks: dict[int, Mark] = {}
        self._pulls: dict[int, dict[ConversationId, _Asked]] = {}
        self._pages: dict[str, dict[ConversationId, _Asked]] = {}
        self._markers: dict[ConversationId, int] = {}
        self._heads: dict[ConversationId, int] = {}

    def sent(self, data: bytes) -> None:
        """The client put a frame on the wire."""
        try:
            self._sent(data)
        except Broken as broken:
            self._oracle.note(broken)

    def written(self, data: bytes) -> None:
        """The server put a frame on the wire: from here on somebody may have seen it."""
        try:
            self._written(data)
        except Broken as broken:
            self._oracle.note(broken)

    def _sent(self, data: bytes) -> None:
        frame = self._encoding.decode_client(data)
        if isinstance(frame, Pull):
            self._ask(frame)
        elif isinstance(frame, Mark):
            self._marks[frame.request] = frame
        elif isinstance(frame, Send):
            self._oracle.bodies[frame.body] = (self._user, frame.id)

    def _written(self, data: bytes) -> None:
        frame = self._encoding.decode_server(data)
        oracle, user = self._oracle, self._user
        if isinstance(frame, Push):
            oracle.counts.pushed += len(frame.entries)
            oracle.contiguous("push", frame.conversation, frame.entries)
            oracle.observe(user, frame.conversation, frame.entries)
        elif isinstance(frame, Pulled):
            self._page(frame)
        elif isinstance(frame, Acked):
            for ack in frame.acks:
                oracle.acked(user, ack)
        elif isinstance(frame, Synced):
            for change in frame.conversations:
                self._changed(change)
        elif isinstance(frame, Notice):
            oracle.named[user, frame.conversation] = None
        elif isinstance(frame, Error) and frame.id and not frame.retryable:
            oracle.refusals[user, frame.id] = None
        elif isinstance(frame, Done) and frame.request in self._marks:
            mark = self._marks.pop(frame.request)
            oracle.marked(user, mark.conversation, mark.seq)

    def _ask(self, frame: Pull) -> None:
        if frame.next:
            self._pulls[frame.request] = self._pages.pop(frame.next, {})
            return
        shown = self._oracle.shown
        self._pulls[frame.request] = {
            r.conversation: _Asked(r.after, r.up_to, shown.get(r.conversation, 0))
            for r in frame.ranges
        }

    def _page(self, frame: Pulled) -> None:
        oracle, asked = self._oracle, self._pulls.pop(frame.request, None)
        oracle.counts.pages += 1
        for run in frame.runs:
            oracle.counts.pulled += len(run.entries)
            oracle.contiguous("pull", run.conversation, run.entries, run.after)
            oracle.observe(self._user, run.conversation, run.entries)
            if asked is not None and run.conversation in asked:
                left = asked[run.conversation]
                if run.after != left.after:
                    raise Broken(f"I8: asked after {left.after}, answered after {run.after}.")
                asked[run.conversation] = left._replace(after=run.after + len(run.entries))
        if asked is None:
            return
        if frame.next:
            self._pages[frame.next] = asked
            return
        for conversation, left in asked.items():
            if left.up_to and left.after != left.up_to:
                raise Broken(f"I8: {conversation!r} was asked to {left.up_to}, ends {left.after}.")
            oracle.answered.append(_Answered(self._user, conversation, left.after, left.floor))

    def _changed(self, change: Changed) -> None:
        oracle, conversation = self._oracle, change.conversation
        # A view that began anew may end below the one before only if it is another one.
        if change.marker < self._markers.get(conversation, 0):
            raise Broken(f"I9: the marker of {self._user!r} in {conversation!r} moved back.")
        if change.marker > change.head:
            raise Broken(f"I9: marker {change.marker} past head {change.head}.")
        if change.head < self._heads.get(conversation, 0):
            raise Broken(f"I3: the head of {conversation!r} moved back to {change.head}.")
        self._markers[conversation] = change.marker
        self._heads[conversation] = change.head
        oracle.changes[self._user, conversation, change.head, change.marker, change.left] = change


class Oracle:
    """All that was seen and promised in one run.

    Attributes:
        broken: what was broken while it ran; to raise it there would only break a task.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.broken: list[Broken] = []
        self.shown: dict[ConversationId, int] = {}
        self.bodies: dict[str, tuple[UserId, ClientMessageId]] = {}
        self.answered: list[_Answered] = []
        self.named: dict[tuple[UserId, ConversationId], None] = {}
        self._stored: dict[str, tuple[ConversationId, Seq]] = {}
        self._jumps: list[tuple[UserId, ConversationId, int, int]] = []
        self.changes: dict[tuple[UserId, ConversationId, Seq, Seq, bool], Changed] = {}
        self.refusals: dict[tuple[UserId, ClientMessageId], None] = {}
        self._entries: dict[tuple[ConversationId, Seq], Entry] = {}
        self._seen_by: dict[tuple[UserId, ConversationId, Seq], None] = {}
        self._acks: dict[Identity, int] = {}
        self._acked_seqs: dict[tuple[ConversationId, int], Identity] = {}
        self._marks: dict[tuple[UserId, ConversationId], int] = {}

    # --- while it runs ------------------------------------------------------------------

    def note(self, broken: Broken) -> None:
        """Something was broken."""
        self.broken.append(broken)

    def line(self, user: UserId, encoding: Encoding) -> Line:
        """A new connection of a user."""
        return Line(self, user, encoding)

    def contiguous(
        self, what: str, conversation: ConversationId, entries: list[Entry], after: int = 0
    ) -> None:
        """The entries of one frame have no hole (I1)."""
        first = after + 1 if after or what == "pull" else entries[0].seq
        if [entry.seq for entry in entries] != list(range(first, first + len(entries))):
            raise Broken(f"I1: a {what} of {conversation!r} has a hole.")

    def observe(self, user: UserId, conversation: ConversationId, entries: list[Entry]) -> None:
        """A user may have seen these."""
        for entry in entries:
            before = self._entries.setdefault((conversation, entry.seq), entry)
            if before != entry:
                raise Broken(f"I2: {conversation!r} showed {before}, later {entry}.")
            self._seen_by[user, conversation, entry.seq] = None
        if entries:
            self._show(conversation, entries[-1].seq)

    def acked(self, user: UserId, ack: Ack) -> None:
        """The server said that it has stored this."""
        identity = (user, ack.conversation, ack.id)
        self.counts.acked += 1
        self.counts.duplicates += ack.duplicate
        before = self._acks.setdefault(identity, ack.seq)
        if before != ack.seq:
            raise Broken(f"I6: {identity} was acked as {before} and as {ack.seq}.")
        owner = self._acked_seqs.setdefault((ack.conversation, ack.seq), identity)
        if owner != identity:
            raise Broken(f"I3: {ack.seq} of {ack.conversation!r} went to {owner} and {identity}.")
        self._show(ack.conversation, ack.seq)

    def marked(self, user: UserId, conversation: ConversationId, seq: int) -> None:
        """The server said that it has stored this marker."""
        key = (user, conversation)
        self._marks[key] = max(seq, self._marks.get(key, 0))

    def jumped(self, user: UserId, conversation: ConversationId, before: int, seq: int) -> None:
        """A reader was handed entry `seq` behind entry `before`: a new view must begin there."""
        self._jumps.append((user, conversation, before, seq))

    def _show(self, conversation: ConversationId, seq: int) -> None:
        if seq > self.shown.get(conversation, 0):
            self.shown[conversation] = seq

    # --- at the end ---------------------------------------------------------------------

    def judge(self, history: History) -> None:
        """Holds what was seen against what is there; raises `Broken`."""
        if self.broken:
            raise self.broken[0]
        self._judge_entries(history)
        self._judge_acks(history)
        self._judge_messages(history)
        self._judge_views(history)
        self._judge_answers(history)

    def is_settled(self, user: UserId, client_message_id: ClientMessageId, body: str) -> bool:
        """Whether a message stood in the history that was judged, or was refused for ever."""
        return body in self._stored or (user, client_message_id) in self.refusals

    def judge_marker(self, user: UserId, conversation: ConversationId, marker: int) -> None:
        """The server's marker at the end is not below what it acknowledged (I4, I9)."""
        acknowledged = self._marks.get((user, conversation), 0)
        if marker < acknowledged:
            raise Broken(f"I4: the marker of {user!r} was acked at {acknowledged}, is {marker}.")

    def _judge_entries(self, history: History) -> None:
        for (conversation, seq), entry in self._entries.items():
            there = history.get(conversation)
            if there is None or there.head < seq:
                raise Broken(f"I5: {conversation!r} {seq} was shown and is gone.")
            if there.entries[seq - 1] != entry:
                raise Broken(f"I2: {conversation!r} {seq} was {entry}.")
        for user, conversation, seq in self._seen_by:
            if not history[conversation].may_see(user, seq):
                raise Broken(f"I13: {user!r} was shown {conversation!r} {seq}.")

    def _judge_acks(self, history: History) -> None:
        for (user, conversation, client_message_id), seq in self._acks.items():
            there = history.get(conversation)
            if there is None or there.head < seq:
                raise Broken(f"I4: {conversation!r} {seq} was acked and is gone.")
            entry = there.entries[seq - 1]
            if entry.sender != user:
                raise Broken(f"I4: {conversation!r} {seq} is {entry.sender!r}'s, not {user!r}'s.")
            if entry.kind is Kind.MESSAGE:
                sent = self.bodies.get(entry.body)
                if sent != (user, client_message_id):
                    raise Broken(f"I4: {conversation!r} {seq} holds {entry.body!r}, not what "
                                 f"was sent as {client_message_id!r}.")  # fmt: skip

    def _judge_messages(self, history: History) -> None:
        """Every message stands there once, and was sent by whom it names (bodies are unique)."""
        stored = self._stored
        for there in history.values():
            for entry in there.entries:
                if entry.kind is not Kind.MESSAGE:
                    continue
                place = (there.id, entry.seq)
                if stored.setdefault(entry.body, place) != place:
                    raise Broken(f"I6: {entry.body!r} stands at {stored[entry.body]} and {place}.")
                sender, _ = self.bodies.get(entry.body, (None, None))
                if sender != entry.sender:
                    raise Broken(f"I2: {place} was never sent by {entry.sender!r}.")
                if not there.may_see(entry.sender, entry.seq):
                    raise Broken(f"I13: {entry.sender!r} wrote {place} and is no member.")

    def _judge_views(self, history: History) -> None:
        for (user, conversation, *_), change in self.changes.items():
            there = history.get(conversation)
            spans = there.spans.get(user, []) if there else []
            span = next((s for s in spans if s.first == change.first), None)
            if there is None or span is None:
                raise Broken(f"I13: {user!r} was told of {conversation!r} from {change.first}.")
            if not span.holds(change.head) or (change.left and change.head != span.last):
                raise Broken(f"I13: {user!r} was told the head {change.head} of {span}.")
            if change.digest != digest_of(there, change.first, change.head):
                raise Broken(f"I14: digest of {conversation!r} {change.first} to {change.head}.")
            if change.unread != there.messages(change.marker, change.head):
                raise Broken(f"unread of {conversation!r} for {user!r}: {change.unread}.")
        for user, conversation in self.named:
            if conversation not in history or user not in history[conversation].spans:
                raise Broken(f"I13: {user!r} was told of {conversation!r}.")

    def _judge_answers(self, history: History) -> None:
        for user, conversation, end, floor in self.answered:
            if end < floor and history[conversation].may_see(user, end + 1):
                raise Broken(f"I8: {conversation!r} ended at {end} when {floor} had been shown.")
        for user, conversation, before, seq in self._jumps:
            if all(span.first != seq for span in history[conversation].spans[user]):
                raise Broken(f"I1: {user!r} read {conversation!r} {seq} behind {before}.")


def digest_of(history: ConversationHistory, first: int, last: int) -> str:
    """The digest over first..last, computed from the entries, in hex."""
    entry_hash = hasher(history.id, history.digest_key)
    return to_hex(total(hash_entry(entry, entry_hash) for entry in history.within(first, last)))
