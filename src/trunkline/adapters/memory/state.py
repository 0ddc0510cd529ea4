"""What the memory hot store holds, and what each of its records changes (no waiting here)."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from trunkline.adapters.memory.records import (
    Appended,
    Archived,
    HotRecord,
    Leased,
    Recorded,
    Trimmed,
    WriteRow,
)
from trunkline.core.appending import AppendState, move_markers
from trunkline.core.head_log import HeadLog
from trunkline.core.rows import conversation_of, member_of
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)

_HEADS_REMEMBERED = 64


class HotState:
    """Tables of the hot store as dicts.

    `entries` begin behind the row's `trimmed_up_to`. `unarchived` says since when each
    conversation waits, milliseconds since 1970, longest waiting first.
    """

    def __init__(self) -> None:
        self.head_log = HeadLog(most=_HEADS_REMEMBERED)
        self.clear()

    def clear(self) -> None:
        """Forgets everything, before it is rebuilt from the journal; what moved stays moved."""
        self.ids: dict[ConversationKey, ConversationId] = {}
        self.conversations: dict[ConversationId, Conversation] = {}
        self.members: dict[ConversationId, dict[UserId, Member]] = {}
        self.entries: dict[ConversationKey, list[StoredEntry]] = {}
        self.known: dict[tuple[ConversationId, UserId, ClientMessageId], Seq] = {}
        self.lists: dict[UserId, dict[ConversationId, UserConversation]] = {}
        self.versions: dict[UserId, int] = {}
        self.offsets: dict[tuple[UserId, EndpointId], dict[ConversationKey, Seq]] = {}
        self.unarchived: dict[ConversationKey, int] = {}
        self.last_token = 0

    # --- questions ----------------------------------------------------------------------

    def append_state(self, batch: Sequence[Draft]) -> AppendState:
        """What a decision about these drafts needs to know."""
        asked = dict.fromkeys(draft.conversation for draft in batch)
        known: dict[tuple[ConversationId, UserId, ClientMessageId], Seq] = {}
        for draft in batch:
            identity = (draft.conversation, draft.sender, draft.client_message_id)
            seq = self.known.get(identity)
            if seq is not None:
                known[identity] = seq
        return AppendState(
            {i: self.conversations[i] for i in asked if i in self.conversations},
            {i: self.members[i] for i in asked if i in self.members},
            known,
        )

    def row(self, key: ConversationKey) -> Conversation | None:
        """The conversation's row."""
        conversation = self.ids.get(key)
        return None if conversation is None else self.conversations[conversation]

    def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """Rows and the user's member rows of those conversations that know the user."""
        found: dict[ConversationId, tuple[Conversation, Member]] = {}
        for conversation in ids:
            member = self.members.get(conversation, {}).get(user)
            if member is not None:
                found[conversation] = (self.conversations[conversation], member)
        return found

    def read(self, key: ConversationKey, after: Seq, up_to_inclusive: Seq) -> Sequence[StoredEntry]:
        """The part of the range that was not trimmed."""
        conversation = self.row(key)
        if conversation is None:
            return ()
        trimmed = conversation.trimmed_up_to
        return self.entries[key][max(0, after - trimmed) : max(0, up_to_inclusive - trimmed)]

    # --- changes ------------------------------------------------------------------------

    def apply(self, record: HotRecord) -> None:
        """Takes over what a record says."""
        match record:
            case Appended():
                for write in record.writes:
                    self._append(write, record.time_ms)
            case Recorded():
                for marker in record.markers:
                    self._mark(marker)
                for move in record.offsets:
                    offsets = self.offsets.setdefault((move.user, move.endpoint), {})
                    offsets[move.key] = max(move.seq, offsets.get(move.key, move.seq))
            case Trimmed():
                self._trim(record.key, record.up_to)
            case Archived():
                self._archived(record.key, record.up_to)
            case Leased():
                self.last_token = max(self.last_token, record.token)

    def _append(self, write: WriteRow, time_ms: int) -> None:
        conversation = conversation_of(write.conversation)
        key = conversation.key
        self.ids[key] = conversation.id
        self.conversations[conversation.id] = conversation
        self.entries.setdefault(key, []).extend(write.entries)
        self.head_log.add(conversation.id, conversation.head)
        for entry in write.entries:
            if entry.client_message_id:
                self.known[conversation.id, entry.sender, entry.client_message_id] = entry.seq
        members = self.members.setdefault(conversation.id, {})
        for row in write.members:
            members[row.user] = member_of(row, row.mac)
            self._raise_version(row.user, conversation)
        move_markers(members, write.entries)
        self.unarchived.setdefault(key, time_ms)

    def _mark(self, move: MarkerMove) -> None:
        conversation = self.row(move.key)
        if conversation is None:
            return
        members = self.members[conversation.id]
        member = members.get(move.user)
        if member is not None and member.marker < move.seq:
            members[move.user] = member.marked(move.seq, move.countable)
            self._raise_version(move.user, conversation)

    def _raise_version(self, user: UserId, conversation: Conversation) -> None:
        version = self.versions.get(user, 0) + 1
        self.versions[user] = version
        self.lists.setdefault(user, {})[conversation.id] = UserConversation(
            conversation.id, conversation.key, version
        )

    def _trim(self, key: ConversationKey, up_to: Seq) -> None:
        conversation = self.row(key)
        if conversation is None:
            return
        trimmed = min(up_to, conversation.archived_up_to)
        dropped = trimmed - conversation.trimmed_up_to
        if dropped <= 0:
            return
        del self.entries[key][:dropped]
        self.conversations[conversation.id] = msgspec.structs.replace(
            conversation, trimmed_up_to=Seq(trimmed)
        )

    def _archived(self, key: ConversationKey, up_to: Seq) -> None:
        conversation = self.row(key)
        if conversation is None:
            return
        archived = max(conversation.archived_up_to, min(up_to, conversation.head))
        self.conversations[conversation.id] = msgspec.structs.replace(
            conversation, archived_up_to=Seq(archived)
        )
        if archived == conversation.head:
            self.unarchived.pop(key, None)
