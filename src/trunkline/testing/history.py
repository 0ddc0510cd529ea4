"""What really happened: every conversation's entries, and who was a member from where to where."""

import json
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from trunkline.core import segments
from trunkline.core.envelope import associated_data_of, opened
from trunkline.model import (
    MEMBERSHIP_KINDS,
    Conversation,
    ConversationId,
    Entry,
    Kind,
    Seq,
    UserId,
)
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer


class Span(msgspec.Struct, frozen=True):
    """A user is a member from entry `first` to entry `last` (None: still)."""

    first: Seq
    last: Seq | None

    def holds(self, seq: int) -> bool:
        """Whether the entry lies within."""
        return self.first <= seq and (self.last is None or seq <= self.last)


class ConversationHistory:
    """One conversation's entries, 1..head, and what follows from them."""

    def __init__(
        self, conversation: ConversationId, digest_key: bytes, entries: Sequence[Entry]
    ) -> None:
        self.id = conversation
        self.digest_key = digest_key
        self.entries = entries
        self.spans: dict[UserId, list[Span]] = {}
        for entry in entries:
            if entry.kind in MEMBERSHIP_KINDS:
                self._membership(entry)

    @property
    def head(self) -> int:
        """The last seq."""
        return len(self.entries)

    def within(self, first: int, last: int) -> Sequence[Entry]:
        """Entries first..last."""
        return self.entries[first - 1 : last]

    def messages(self, after: int, up_to_inclusive: int) -> int:
        """How many of the entries after+1..up_to_inclusive count as unread."""
        return sum(e.kind is Kind.MESSAGE for e in self.entries[after:up_to_inclusive])

    def may_see(self, user: UserId, seq: int) -> bool:
        """Whether the user was a member when the entry was made, or by it."""
        return any(span.holds(seq) for span in self.spans.get(user, ()))

    def _membership(self, entry: Entry) -> None:
        for user in json.loads(entry.body).get("users", ()):
            spans = self.spans.setdefault(user, [])
            if entry.kind is Kind.LEFT:
                spans[-1] = Span(spans[-1].first, entry.seq)
            else:
                spans.append(Span(entry.seq, None))


History = Mapping[ConversationId, ConversationHistory]


class Broken(AssertionError):
    """A promise was broken; the text begins with its number."""


async def read_history(
    users: Sequence[UserId], hot: HotStore, cold: ColdStore, sealer: Sealer
) -> History:
    """Reads everything from the stores, past all services.

    What both tiers hold must be equal (I10), and each conversation whole (I1).
    """
    rows: dict[ConversationId, Conversation] = {}
    for user in users:
        listed = [line.conversation for line in await hot.conversations_of(user)]
        for conversation, (row, _) in (await hot.views(user, listed)).items():
            rows[conversation] = row
    return {
        conversation: ConversationHistory(
            conversation,
            sealer.cipher(row.wrapped_key, row.place).digest_key,
            await _read(row, hot, cold, sealer),
        )
        for conversation, row in rows.items()
    }


async def judge_cold_metadata(history: History, hot: HotStore, cold: ColdStore) -> None:
    """What the cold tier knows of each conversation is what hot knows; raises `Broken`."""
    for there in history.values():
        anybody = next(iter(there.spans))
        row, _ = (await hot.views(anybody, (there.id,)))[there.id]
        metadata = await cold.metadata(row.key)
        if metadata is None or metadata.conversation.membership_version != row.membership_version:
            raise Broken(f"I10: cold does not know who is a member of {there.id!r}.")
        for member in metadata.members:
            span = there.spans[member.user][-1]
            if (member.visible_from, member.left_at) != (span.first, span.last or 0):
                raise Broken(f"I10: cold knows {member} of {there.id!r}, not {span}.")


async def _read(
    row: Conversation, hot: HotStore, cold: ColdStore, sealer: Sealer
) -> Sequence[Entry]:
    cipher = sealer.cipher(row.wrapped_key, row.place)
    found: dict[Seq, Entry] = {}
    for segment in await cold.read(row.key, Seq(0), row.head):
        for entry in segments.open_segment(row, segment, cipher).entries:
            _agree(found, row, entry)
    for stored in await hot.read(row.key, Seq(0), row.head):
        plaintext = cipher.open(stored.sealed, associated_data_of(row.id, stored))
        _agree(found, row, opened(stored, plaintext))
    entries = [found[seq] for seq in sorted(found)]
    if [entry.seq for entry in entries] != list(range(1, row.head + 1)):
        raise Broken(f"I1: {row.id!r} has head {row.head}, the stores hold {sorted(found)}.")
    return entries


def _agree(found: dict[Seq, Entry], row: Conversation, entry: Entry) -> None:
    before = found.setdefault(entry.seq, entry)
    if before != entry:
        raise Broken(f"I10: {row.id!r} holds {before} in one place and {entry} in another.")


def spans_of(history: History, user: UserId) -> Iterator[tuple[ConversationHistory, list[Span]]]:
    """The conversations of which the user is or was a member."""
    for conversation in history.values():
        spans = conversation.spans.get(user)
        if spans:
            yield conversation, spans
