"""What the store holds in memory: cached rows, and commits that the tables do not hold yet."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

import msgspec

from trunkline.adapters.sqlite.records import Archived, Commit, OffsetSet, Trimmed, Written
from trunkline.core.appending import move_markers
from trunkline.core.digest import from_bytes
from trunkline.core.head_log import HeadLog
from trunkline.core.rows import conversation_of, member_of
from trunkline.model import (
    NO_SEQ,
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    EndpointId,
    Member,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)

_STRANGERS_MOST = 1_000
_SKIPPED_AT_ONCE = 64
_FREED_AT_ONCE = 500


PendingIds = dict[tuple[UserId, ClientMessageId], Seq]


class Slot(msgspec.Struct, gc=False):
    """One conversation: its row, and what was loaded of its members and senders.

    What stands here is newer than the tables or the same. `strangers` are users known not
    to be members. `highest` is each sender's highest client message id ever; whose is not
    here, the tables must be asked. `complete`: all members are here; `whole`: all senders too,
    since the conversation was created while it was here. `pending` are the entries that the
    tables do not hold yet, contiguous up to head. `journal_id` is the last commit that
    changed it.

    There are very many of these and nothing in them refers back: out of the collector's
    sight, they do not make it stop the loop.
    """

    conversation: Conversation
    members: dict[UserId, Member] = msgspec.field(default_factory=dict)
    strangers: dict[UserId, None] = msgspec.field(default_factory=dict)
    complete: bool = False
    whole: bool = False
    highest: dict[UserId, ClientMessageId] = msgspec.field(default_factory=dict)
    pending: list[StoredEntry] = msgspec.field(default_factory=list)
    journal_id: int = 0
    ids: PendingIds | None = None

    def pending_ids(self) -> PendingIds:
        """Who sent which client message id, of pending entries.

        Made at the first question and kept up to date until nothing is pending: who sends
        rising ids never asks.
        """
        if self.ids is None:
            self.ids = {
                (entry.sender, entry.client_message_id): entry.seq
                for entry in self.pending
                if entry.client_message_id
            }
        return self.ids

    def knows(self, user: UserId) -> bool:
        """Whether it is known here if this user is a member."""
        return user in self.members or self.complete or user in self.strangers

    def learn(self, user: UserId, member: Member | None) -> None:
        """Takes over what the tables say of a user."""
        if member is not None:
            self.members.setdefault(user, member)
        elif not self.complete:
            if len(self.strangers) >= _STRANGERS_MOST:
                self.strangers.clear()
            self.strangers[user] = None

    def set_member(self, member: Member) -> None:
        """Takes over a member's row that a commit wrote."""
        self.members[member.user] = member
        self.strangers.pop(member.user, None)


class State:
    """Owned by the loop's thread; changed by commits that are on disk, and by nothing else.

    `unarchived` says since when each conversation waits, milliseconds since 1970, longest
    waiting first; `heads` which of them moved last.
    """

    def __init__(self, watermark: int, version: int, cached_conversations: int) -> None:
        self.watermark = watermark
        self.version = version
        self.last_id = watermark
        self.entries = 0
        self.bytes = 0
        self.unarchived: dict[ConversationKey, int] = {}
        self.heads = HeadLog(most=cached_conversations)
        self._cached_conversations = cached_conversations
        self._by_id: dict[ConversationId, Slot] = {}
        self._by_key: dict[ConversationKey, Slot] = {}
        self._lists: dict[UserId, dict[ConversationKey, UserConversation]] = {}
        self._offsets: dict[tuple[UserId, EndpointId], dict[ConversationKey, Seq]] = {}
        self._commits: deque[tuple[int, Commit, int, int]] = deque()

    # --- questions ----------------------------------------------------------------------

    def slot(self, conversation: ConversationId) -> Slot | None:
        """The slot of an id, if it is cached."""
        return self._by_id.get(conversation)

    def slot_of_key(self, key: ConversationKey) -> Slot | None:
        """The slot of a key, if it is cached."""
        return self._by_key.get(key)

    def pending_list(self, user: UserId) -> list[UserConversation]:
        """Lines of a user's list that the tables may not hold yet."""
        return list(self._lists.get(user, {}).values())

    def pending_offsets(self, user: UserId, endpoint: EndpointId) -> dict[ConversationKey, Seq]:
        """Offsets of an endpoint that the tables may not hold yet."""
        return dict(self._offsets.get((user, endpoint), {}))

    def archived_keys(self) -> set[ConversationKey]:
        """Cached conversations that are archived in full, as the tables may not know yet."""
        return {k for k, slot in self._by_key.items() if not slot.conversation.to_be_archived}

    def slice_end(self, entries: int) -> int:
        """The commit that ends a slice of about so many entries."""
        for journal_id, _, weight, _ in self._commits:
            entries -= weight
            if entries <= 0:
                return journal_id
        return self.last_id

    # --- the cache ----------------------------------------------------------------------

    def keep(self, conversation: Conversation) -> Slot:
        """The slot of a conversation; made from this row if there is none yet."""
        slot = self._by_key.get(conversation.key)
        if slot is None:
            slot = Slot(conversation)
            self._by_id[conversation.id] = slot
            self._by_key[conversation.key] = slot
        return slot

    def touch(self, slot: Slot) -> None:
        """Marks a slot as used last."""
        conversation = slot.conversation.id
        del self._by_id[conversation]
        self._by_id[conversation] = slot

    def evict(self) -> None:
        """Brings the cache back to its bound, at the cost of what was used longest ago.

        What the tables do not hold yet stays. Slots go nowhere else: who holds one before
        the next commit begins holds the one that counts.
        """
        excess = len(self._by_id) - self._cached_conversations
        if excess <= 0:
            return
        for slot in list(islice(self._by_id.values(), excess + _SKIPPED_AT_ONCE)):
            if slot.pending or slot.journal_id > self.watermark:
                self.touch(slot)
            else:
                del self._by_id[slot.conversation.id]
                del self._by_key[slot.conversation.key]

    # --- changes ------------------------------------------------------------------------

    def apply(self, journal_id: int, commit: Commit, body_bytes: int) -> None:
        """Takes over a commit that is on disk; the slots it changes must be there."""
        for record in commit.records:
            match record:
                case Written():
                    self._write(journal_id, record, commit.time_ms)
                case OffsetSet():
                    offsets = self._offsets.setdefault((record.user, record.endpoint), {})
                    offsets[record.key] = max(record.seq, offsets.get(record.key, record.seq))
                case Archived():
                    self._mark(journal_id, record.key, archived_up_to=record.up_to_inclusive)
                case Trimmed():
                    self._mark(journal_id, record.key, trimmed_up_to=record.up_to_inclusive)
        weight = commit.weight()
        self.last_id = journal_id
        self.version = max(self.version, commit.version)
        self.entries += weight
        self.bytes += body_bytes
        self._commits.append((journal_id, commit, weight, body_bytes))

    def _write(self, journal_id: int, record: Written, time_ms: int) -> None:
        slot = self._by_key.get(record.key)
        if record.row is not None:
            conversation = conversation_of(record.row)
            if slot is None:
                slot = self.keep(conversation)
                slot.complete = slot.whole = conversation.head == len(record.entries)
            slot.conversation = conversation
        elif record.entries:
            assert slot is not None
            slot.conversation = with_head(slot.conversation, record.entries[-1])
        assert slot is not None
        slot.journal_id = journal_id
        for row in record.members:
            slot.set_member(member_of(row, row.mac))
            lines = self._lists.setdefault(row.user, {})
            lines[record.key] = UserConversation(record.id, record.key, row.version)
        move_markers(slot.members, record.entries)
        highest, ids, whole = slot.highest, slot.ids, slot.whole
        for entry in record.entries:
            client_message_id = entry.client_message_id
            if client_message_id:
                before = highest.get(entry.sender)
                if whole if before is None else client_message_id > before:
                    highest[entry.sender] = client_message_id
                if ids is not None:
                    ids[entry.sender, client_message_id] = entry.seq
        slot.pending += record.entries
        if record.entries:
            self.heads.add(record.id, slot.conversation.head)
            self.unarchived.setdefault(record.key, time_ms)

    def _mark(
        self,
        journal_id: int,
        key: ConversationKey,
        *,
        archived_up_to: Seq = NO_SEQ,
        trimmed_up_to: Seq = NO_SEQ,
    ) -> None:
        slot = self._by_key[key]
        old = slot.conversation
        slot.journal_id = journal_id
        slot.conversation = msgspec.structs.replace(
            old,
            archived_up_to=max(old.archived_up_to, archived_up_to),
            trimmed_up_to=max(old.trimmed_up_to, trimmed_up_to),
        )
        if slot.conversation.archived_up_to == old.head:
            self.unarchived.pop(key, None)

    def free(self, watermark: int) -> Iterator[None]:
        """Forgets the pending commits up to `watermark`, which the tables now hold.

        Comes back to the caller after every few hundred entries.
        """
        self.watermark = max(self.watermark, watermark)
        while self._commits and self._commits[0][0] <= watermark:
            done: dict[ConversationKey, Seq] = {}
            freed = 0
            while freed < _FREED_AT_ONCE and self._commits and self._commits[0][0] <= watermark:
                _, commit, weight, body_bytes = self._commits.popleft()
                freed += weight
                self.entries -= weight
                self.bytes -= body_bytes
                for record in commit.records:
                    if isinstance(record, Written):
                        self._free_lines(record)
                        if record.entries:
                            done[record.key] = record.entries[-1].seq
                    elif isinstance(record, OffsetSet):
                        self._free_offset(record)
            for key, seq in done.items():
                _free_entries(self._by_key[key], seq)
            yield

    def _free_lines(self, record: Written) -> None:
        for row in record.members:
            lines = self._lists.get(row.user)
            if (
                lines is not None
                and record.key in lines
                and lines[record.key].version <= row.version
            ):
                del lines[record.key]
                if not lines:
                    del self._lists[row.user]

    def _free_offset(self, record: OffsetSet) -> None:
        identity = (record.user, record.endpoint)
        offsets = self._offsets.get(identity)
        if offsets is not None and offsets.get(record.key, record.seq + 1) <= record.seq:
            del offsets[record.key]
            if not offsets:
                del self._offsets[identity]


def with_head(old: Conversation, last: StoredEntry) -> Conversation:
    """The conversation's row after its last entry."""
    return Conversation(
        old.key,
        old.id,
        old.kind,
        old.wrapped_key,
        last.seq,
        last.countable,
        from_bytes(last.digest),
        old.archived_up_to,
        old.trimmed_up_to,
        old.membership_version,
        old.member_count,
        old.sealed_name,
    )


def _free_entries(slot: Slot, up_to_inclusive: Seq) -> None:
    pending = slot.pending
    count = up_to_inclusive - pending[0].seq + 1 if pending else 0
    if slot.ids is not None:
        for entry in pending[:count]:
            slot.ids.pop((entry.sender, entry.client_message_id), None)
    del pending[:count]
    if not pending:
        slot.ids = None
