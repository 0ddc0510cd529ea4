"""Decides what an endpoint's copies become: what is stored, dropped, pulled, proven (I1, I14).

Pure: it is fed pushes, pulled runs, acks and sync answers, and keeps what must be written
(`take_changes`), what must be pulled (`behind`) and what may be confirmed
(`take_offsets`). Times are monotonic seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from trunkline.client.counters import Counters
from trunkline.client.doubts import Doubts, lost_whole
from trunkline.client.held import Held
from trunkline.client.policy import Behind
from trunkline.client.store import Changes, Copy
from trunkline.core.digest import from_bytes
from trunkline.core.ranges import Vector
from trunkline.errors import (
    ConversationShredded,
    DigestMismatch,
    ProtocolError,
    TrunklineError,
)
from trunkline.model import ConversationId, Entry, Seq, UserId
from trunkline.wire.frames import Changed, Run

GAP_SECONDS: Final = 0.1
"""So long a gap may close by itself: acks and pushes of one batch may come in either order."""
EARLY_ENTRIES_MAX: Final = 1024
"""At most so many entries beyond a gap are kept for each conversation."""
HEALS_MAX: Final = 3
"""So often a copy is pulled afresh after one sync, before it waits for the next sync."""
STALLS_MAX: Final = 4
"""So often a pull may bring nothing new although the head lies beyond."""

Deliver = Callable[[ConversationId, Sequence[Entry]], None]
Rewind = Callable[[ConversationId, Seq | None], None]
Report = Callable[[TrunklineError], None]


class Replica:
    """The copies of one endpoint.

    Attributes:
        sync_wanted: something happened that only a sync can tell.
        turn: rises whenever there may be something new to pull or sync.
    """

    def __init__(
        self,
        user: UserId,
        copies: Sequence[Copy],
        cursor: int,
        *,
        deliver: Deliver,
        rewind: Rewind = lambda _, __: None,
        report: Report,
        all_is_news: bool = False,
        unsettled: Sequence[ConversationId] = (),
    ) -> None:
        """`rewind`: told from where on a healed copy is another than readers read; None: nowhere.
        `all_is_news`: also what an endpoint without a past finds at its first sync.
        `unsettled`: copies that are still to be compared with what was set apart of them.
        """
        self.user = user
        self.cursor = cursor
        self.counters = Counters()
        self.sync_wanted = False
        self.turn = 0
        self.held: dict[ConversationId, Held] = {c.conversation: Held.load(c) for c in copies}
        self.unwritten_entries = 0
        self.doubts = Doubts()
        self._deliver = deliver
        self._rewind = rewind
        self._report = report
        self._new_endpoint = not cursor and not copies and not all_is_news
        self._behind: dict[ConversationId, float] = {}
        self._runs: dict[ConversationId, list[list[Entry]]] = {}
        # Dicts, because their order is always the same.
        self._dirty: dict[ConversationId, None] = {}
        self._proved: dict[ConversationId, None] = {}
        self._dropped: dict[ConversationId, None] = {}
        self._aside: list[tuple[Copy, Sequence[list[Entry]], bool]] = []
        for conversation in unsettled:
            if (held := self.held.get(conversation)) is not None:
                held.healing = True
        self._unconfirmed: dict[ConversationId, None] = {}
        self._vector = Vector()
        self._moved: dict[ConversationId, None] = dict.fromkeys(self.held)
        for conversation, held in self.held.items():
            if held.head > held.last:
                self._behind[conversation] = 0.0

    # --- what arrives ---------------------------------------------------------------

    def push(self, conversation: ConversationId, entries: list[Entry], now: float) -> None:
        """Entries that the server pushed, contiguous among themselves."""
        held = self.held.get(conversation)
        if held is None or held.is_gone:
            self.want_sync()
            return
        self.counters.pushed += self._arrived(held, entries, now)

    def own(self, conversation: ConversationId, entry: Entry, now: float) -> None:
        """An entry that this endpoint sent, built from its ack."""
        held = self.held.get(conversation)
        if held is None or held.is_gone:
            self.want_sync()
        else:
            self._arrived(held, [entry], now)

    def reached(self, conversation: ConversationId, seq: Seq, now: float) -> None:
        """The conversation has an entry `seq` whose content is not at hand."""
        held = self.held.get(conversation)
        if held is None or held.is_gone:
            self.want_sync()
        elif seq > held.last:
            self._see_gap(held, seq, now)

    def pulled(self, run: Run) -> None:
        """A run that was asked for; raises `ProtocolError` if it has a hole (I8)."""
        held = self.held.get(run.conversation)
        entries = run.entries
        if not entries or held is None or run.after > held.last:
            return
        if entries[0].seq != run.after + 1 or entries[-1].seq != run.after + len(entries):
            raise ProtocolError(f"A pulled run after {run.after} is not contiguous.")
        fresh = entries[held.last - run.after :] if held.last > run.after else entries
        if fresh:
            self.counters.pulled += len(fresh)
            self._extend(held, fresh)

    def pull_begins(self, conversations: Sequence[ConversationId]) -> dict[ConversationId, Seq]:
        """A pull of these is asked for now; returns after which seqs."""
        after: dict[ConversationId, Seq] = {}
        for conversation in conversations:
            held = self.held[conversation]
            held.pulling = True
            after[conversation] = held.last
        return after

    def pull_ended(self, conversation: ConversationId, before: Seq, now: float) -> None:
        """All that a pull asked for has come; `before` is what was held when it was asked."""
        held = self.held[conversation]
        held.pulling = False
        if held.last >= held.head or conversation not in self._behind:
            return
        held.stalls = held.stalls + 1 if held.last <= before else 0
        if held.stalls > STALLS_MAX:
            self._behind.pop(conversation, None)
            held.stalls = 0
            self.want_sync()
        elif held.stalls:
            self._wait(held, now + GAP_SECONDS * 2**held.stalls)

    def refused(self, conversation: ConversationId) -> None:
        """The server does not give this range (any more): the next sync tells why."""
        self.held[conversation].pulling = False
        self._behind.pop(conversation, None)

    def shredded(self, conversation: ConversationId) -> None:
        """The server refused something since it destroyed the conversation's key."""
        held = self.held.get(conversation)
        if held is not None:
            held.pulling = False
            self._shred(held)

    def pull_failed(self, conversations: Sequence[ConversationId]) -> None:
        """The pull ended early: what it did not bring is asked for again."""
        for conversation in conversations:
            self.held[conversation].pulling = False

    def changed(self, conversations: Sequence[Changed]) -> None:
        """A page of a sync's answer."""
        for one in conversations:
            self._change(one)

    def sync_ended(self, cursor: int) -> None:
        """The last page was taken over. If doubts began meanwhile, the next sync asks for all."""
        self.cursor = self.cursor if self.doubts.want_all else cursor
        self._new_endpoint = False
        self.turn += 1
        for conversation in self.doubts.sync_ended():
            self._vanish(self.held[conversation])

    def doubt(self) -> None:
        """The store may have lost what it has shown: all copies are compared with it."""
        self.cursor = 0
        copies = [held for held in self.held.values() if not held.shredded]
        for held in copies:
            held.restored = True
        self.doubts.begin(held.conversation for held in copies)
        self.want_sync()

    def told(self, asked: Mapping[ConversationId, Seq], changes: Sequence[Changed]) -> None:
        """What the server says of copies that were ahead; `asked`: up to where each was held.

        The server had all of `asked` before it looked: where it has less, that is gone.
        """
        listed = {change.conversation: change for change in changes}
        for conversation, last in asked.items():
            held, change = self.held[conversation], listed.get(conversation)
            if change is None:
                self._vanish(held)
                continue
            if change.head < last and not change.shredded:
                self._set_aside(held, change.first)
            self._change(change)

    def proved(self, conversation: ConversationId, seq: Seq, proof: str) -> None:
        """The server's proof that it gave out `seq`; it is written with what comes next."""
        held = self.held[conversation]
        if held.first <= seq <= held.last:
            held.proved, held.proof = seq, proof
            self._proved[conversation] = None

    def note_proofs(self) -> None:
        """Has proofs written, too, though nothing else is to be."""
        self._dirty.update(self._proved)

    @property
    def complete_again(self) -> ConversationId | None:
        """A copy that was pulled afresh and is to be compared with what was set apart of it."""
        return next(
            (c for c, h in self.held.items() if h.healing and h.last >= h.head and not h.pulling),
            None,
        )

    def healed(self, conversation: ConversationId, lost: Sequence[Entry]) -> None:
        """It was compared; `lost` is what the store does not have."""
        held = self.held[conversation]
        held.healing = False
        self.counters.set_apart += len(lost)
        self.turn += 1
        # Of a copy that was only damaged, readers have seen what is right.
        self._begin_again(held, lost[0].seq if lost and held.restored else None)

    def _begin_again(self, held: Held, first: Seq | None) -> None:
        if first is not None:
            held.live_after = min(held.live_after, Seq(first - 1))
        self._rewind(held.conversation, first)

    def open(self, held: Held) -> None:
        """The application wants this conversation, whatever the policy."""
        held.opened = True
        self.turn += 1

    def want_sync(self) -> None:
        """Asks for a sync, soon."""
        if not self.sync_wanted:
            self.sync_wanted = True
            self.turn += 1

    # --- what is to be done ----------------------------------------------------------

    def behind(self, now: float) -> list[Behind]:
        """The copies that lack entries; a gap counts once it did not close by itself."""
        found: list[Behind] = []
        for conversation, due in self._behind.items():
            if due > now:
                continue
            held = self.held[conversation]
            if due and not held.stalls:
                self.counters.gaps_seen += 1
            self._behind[conversation] = 0.0
            found.append(held.behind())
        return found

    def next_due(self, now: float) -> float | None:
        """Seconds until a gap that may still close by itself is to be pulled, or None."""
        waiting = [due for due in self._behind.values() if due]
        return max(0.0, min(waiting) - now) if waiting else None

    def take_changes(self) -> Changes:
        """What is to be written since the last call."""
        changes = Changes(
            list(self._dropped),
            list(self._runs.items()),
            [self.held[conversation].copy() for conversation in self._dirty | self._proved],
            aside=self._aside,
        )
        self._dropped, self._runs, self._dirty, self._proved, self._aside = {}, {}, {}, {}, []
        self.unwritten_entries = 0
        return changes

    def take_offsets(self) -> dict[ConversationId, Seq]:
        """What may be confirmed once what `take_changes` gave before this is durable."""
        offsets = {c: h.last for c in self._unconfirmed if (h := self.held[c]).vector_seq}
        self._unconfirmed.clear()
        return offsets

    def unconfirm(self, conversations: Mapping[ConversationId, Seq]) -> None:
        """These offsets did not go out: they are to be confirmed again."""
        self._unconfirmed.update(dict.fromkeys(conversations))

    @property
    def is_behind(self) -> bool:
        """Whether any copy lacks entries."""
        return bool(self._behind)

    @property
    def has_unconfirmed(self) -> bool:
        """Whether there is something to confirm."""
        return bool(self._unconfirmed)

    @property
    def has_changes(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty or self._dropped or self._aside)

    def vector(self) -> Vector:
        """The last contiguous seq of every copy, at the cost of what moved since the last call.

        It moves only when it is asked for.
        """
        for conversation in self._moved:
            self._vector.move(conversation, self.held[conversation].vector_seq)
        self._moved.clear()
        return self._vector

    def mark(self, conversation: ConversationId, seq: Seq, read: int) -> None:
        """The person has seen everything up to `seq`, which are `read` messages more."""
        held = self.held[conversation]
        held.marker, held.unread = seq, max(0, held.unread - read)
        held.mark_waits = True
        self._dirty[conversation] = None

    def marked(self, conversation: ConversationId) -> None:
        """The server knows the marker."""
        held = self.held[conversation]
        held.mark_waits = False
        self._dirty[conversation] = None
        if held.unread_at < held.head:
            self.want_sync()

    # --- how copies move -------------------------------------------------------------

    def _arrived(self, held: Held, entries: list[Entry], now: float) -> int:
        """Joins entries that came unasked to a copy; returns how many became part of it."""
        first, last = entries[0].seq, entries[-1].seq
        if last - first != len(entries) - 1:
            raise ProtocolError("A push is not contiguous.")
        before = held.last
        if first == before + 1:
            self._extend(held, entries)
        elif first > before:
            held.count(entries, self.user)
            # A pull that is still to be asked for will bring them.
            if held.pulling or self._behind.get(held.conversation) != 0.0:
                held.keep_early(entries, EARLY_ENTRIES_MAX)
            self._see_gap(held, last, now)
            return 0
        else:
            known = min(before, last) - first + 1
            self.counters.duplicates_dropped += sum(
                entry.sender != self.user for entry in entries[:known]
            )
            if last <= before:
                return 0
            self._extend(held, entries[known:])
        return max(0, held.last - before)

    def _see_gap(self, held: Held, seq: Seq, now: float) -> None:
        held.head = max(held.head, seq)
        if held.conversation not in self._behind:
            self._wait(held, now + GAP_SECONDS)

    def _wait(self, held: Held, due: float) -> None:
        self._behind[held.conversation] = due
        self.turn += 1

    def _extend(self, held: Held, entries: list[Entry]) -> None:
        """Takes entries last+1.. over, checked where the server's digest is known."""
        while entries:
            rest: list[Entry] = []
            expected = held.expected
            if expected is not None and held.last < expected[0] <= entries[-1].seq:
                cut = expected[0] - held.last
                entries, rest = entries[:cut], entries[cut:]
            self._take(held, entries)
            if not self._prove(held):
                return
            entries = rest or held.take_early()
        if held.last >= held.head:
            held.head = held.last
            held.stalls = 0
            self._behind.pop(held.conversation, None)

    def _take(self, held: Held, entries: list[Entry]) -> None:
        held.take(entries, self.user)
        conversation = held.conversation
        runs = self._runs.get(conversation)
        if runs is None:
            self._runs[conversation] = [entries]
        else:
            runs.append(entries)
        self.unwritten_entries += len(entries)
        self._moved[conversation] = None
        self._dirty[conversation] = None
        self._unconfirmed[conversation] = None
        if not held.healing:  # readers get them once it is known what they have seen already
            self._deliver(conversation, entries)

    def _prove(self, held: Held) -> bool:
        """Compares with the server's digest where that stands exactly here (I14)."""
        if held.expected is None or held.expected[0] != held.last:
            return True
        _, digest = held.expected
        if digest == held.digest:
            held.expected, held.mismatches = None, 0
            return True
        self.counters.digest_mismatches += 1
        held.mismatches += 1
        self._report(
            DigestMismatch(
                f"The copy of conversation {held.conversation!r} up to {held.last} differs from "
                "the server's: it is pulled afresh."
            )
        )
        self._set_aside(held, held.first)
        if held.mismatches <= HEALS_MAX:
            self._wait(held, 0.0)
        else:
            self._behind.pop(held.conversation, None)
        return False

    def _restart(self, held: Held, first: Seq) -> None:
        """Drops what the copy holds; it starts again at `first`."""
        self._take_back(held)
        self._dropped[held.conversation] = None
        held.restart(first)

    def _set_aside(self, held: Held, first: Seq, *, compare: bool = True) -> None:
        """Sets apart what the copy holds; it starts again at `first`.

        `compare`: what the store has, too, is taken out again once all was pulled.
        """
        copy, parts = held.copy(), self._take_back(held)
        if held.last >= held.first:
            self._aside.append((copy, parts, compare))
            held.healing = held.healing or compare
        held.restart(first)
        if not compare:
            self._begin_again(held, first)
        self._wait(held, 0.0)

    def _take_back(self, held: Held) -> list[list[Entry]]:
        """What was to be written of a copy that starts again."""
        parts = self._runs.pop(held.conversation, [])
        self.unwritten_entries -= sum(map(len, parts))
        self._moved[held.conversation] = None
        self._unconfirmed.pop(held.conversation, None)
        self._dirty[held.conversation] = None
        return parts

    def _vanish(self, held: Held) -> None:
        """The store does not know the conversation, or not this user in it, any more."""
        if held.last >= held.first:
            self.counters.set_apart += held.last - held.first + 1
            self._report(lost_whole(held.conversation))
        self._set_aside(held, held.first, compare=False)
        held.head, held.unread, held.expected, held.left = held.last, 0, None, True
        held.healing = False
        self._behind.pop(held.conversation, None)
        self.doubts.ahead.pop(held.conversation, None)

    def _change(self, change: Changed) -> None:
        held = self.held.get(change.conversation)
        if held is None:
            held = self.held[change.conversation] = Held.start(change)
            # To a new endpoint everything is news; live is what comes after its first sync.
            held.live_after = change.head if self._new_endpoint else Seq(change.first - 1)
        elif not change.shredded and change.digest_key != held.digest_key.hex():
            self._set_aside(held, change.first, compare=False)
            held.become(change)
        elif held.first != change.first and not change.shredded:
            self._restart(held, change.first)
        comparable = self.doubts.listed(change.conversation, change.head, held.last)
        held.restored = held.restored or not comparable
        if change.shredded:
            held.left = change.left
            self._shred(held)
            return
        held.update(change)
        held.mismatches = 0
        self._dirty[change.conversation] = None
        if comparable and change.head >= held.last:
            held.expected = (change.head, from_bytes(bytes.fromhex(change.digest)))
            if self._prove(held) and held.last < held.head:
                self._wait(held, 0.0)

    def _shred(self, held: Held) -> None:
        """The server can read it no more: what the copy holds stays, nothing else will come."""
        held.head, held.unread, held.expected, held.early = held.last, 0, None, None
        self._behind.pop(held.conversation, None)
        self._dirty[held.conversation] = None
        if held.shredded:
            return
        held.shredded = True
        self._report(ConversationShredded(f"Conversation {held.conversation!r} was shredded."))
