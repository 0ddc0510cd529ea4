"""Finds what a batch needs beyond the cache, and brings it in with one visit to the tables."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from trunkline.adapters.sqlite.state import Slot, State
from trunkline.adapters.sqlite.tables import Tables
from trunkline.core.appending import AppendState
from trunkline.errors import StorageUnavailable
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    Member,
    Seq,
    UserId,
)


class Wanted(msgspec.Struct):
    """What the cache lacks of one conversation, named by id or, without it, by key.

    `fresh_keys` are keys that a new conversation may get: they must be free.
    """

    id: ConversationId | None = None
    key: ConversationKey | None = None
    users: set[UserId] = msgspec.field(default_factory=set)
    senders: dict[UserId, set[ClientMessageId]] = msgspec.field(default_factory=dict)
    fresh_keys: set[ConversationKey] = msgspec.field(default_factory=set)


class Loaded(msgspec.Struct):
    """The tables' answer to a `Wanted`."""

    conversation: Conversation | None
    members: dict[UserId, Member | None]
    highest: dict[UserId, ClientMessageId]
    known: dict[tuple[UserId, ClientMessageId], Seq]
    taken: bool = False


class Pending(msgspec.Struct, frozen=True):
    """What only the journal may hold of a `Wanted`: its senders' highest ids and the known ones."""

    highest: dict[UserId, ClientMessageId] = {}
    known: dict[tuple[UserId, ClientMessageId], Seq] = {}


_NOT_PENDING: Final = Pending()
_NO_ID: Final = ClientMessageId("")

Identity = tuple[ConversationId, UserId, ClientMessageId]


class Need:
    """What one commit needs; first of the cache, then, where that lacks it, of the tables."""

    def __init__(self, state: State) -> None:
        state.evict()  # now, and not again before this commit is settled
        self._state = state
        self._wanted: dict[ConversationId | ConversationKey, Wanted] = {}
        self._known: dict[Identity, Seq] = {}

    def drafts(self, batch: Sequence[Draft]) -> None:
        """Notes what the drafts need: rows, senders, named users, client message ids."""
        slot_of = self._state.slot
        for draft in batch:
            slot = slot_of(draft.conversation)
            if slot is None:
                self._want_new(draft)
                continue
            user = draft.sender
            client_message_id = draft.client_message_id
            highest = slot.highest.get(user)
            if highest is None and slot.whole:
                highest = slot.highest[user] = ClientMessageId("")
            if highest is None or client_message_id <= highest:
                self._want(slot).senders.setdefault(user, set()).add(client_message_id)
            if not slot.knows(user):
                self._want(slot).users.add(user)
            for named in draft.users:
                if not slot.knows(named):
                    self._want(slot).users.add(named)

    def conversation(self, key: ConversationKey, user: UserId | None = None) -> None:
        """Notes that a conversation's row is needed, and with it a member's."""
        slot = self._state.slot_of_key(key)
        if slot is None:
            wanted = self._wanted.setdefault(key, Wanted(key=key))
        elif user is not None and not slot.knows(user):
            wanted = self._want(slot)
        else:
            return
        if user is not None:
            wanted.users.add(user)

    def wanted(self) -> list[Wanted]:
        """What the tables must be asked."""
        return list(self._wanted.values())

    def pending(self) -> list[Pending]:
        """What the journal alone may know of the ids that are wanted; as `wanted` is ordered."""
        return [self._pending_of(wanted) for wanted in self._wanted.values()]

    def _pending_of(self, wanted: Wanted) -> Pending:
        slot = self._state.slot_of_key(wanted.key) if wanted.key is not None else None
        if slot is None or not wanted.senders:
            return _NOT_PENDING
        ids = slot.pending_ids()
        return Pending(
            {
                user: max((name for sender, name in ids if sender == user), default=_NO_ID)
                for user in wanted.senders
                if user not in slot.highest
            },
            {
                (user, name): ids[user, name]
                for user, asked in wanted.senders.items()
                for name in asked
                if (user, name) in ids
            },
        )

    def take(self, pending: Sequence[Pending], loaded: Sequence[Loaded]) -> None:
        """Takes the answers to `wanted` into the cache.

        Raises `StorageUnavailable` if the key of a new conversation is taken already.
        """
        for wanted, journal, found in zip(self._wanted.values(), pending, loaded, strict=True):
            slot = self._state.slot_of_key(wanted.key) if wanted.key is not None else None
            if slot is None and found.conversation is not None:
                slot = self._state.keep(found.conversation)
            if slot is None:
                if found.taken or any(self._state.slot_of_key(k) for k in wanted.fresh_keys):
                    raise StorageUnavailable("A new conversation drew a key that is taken.")
                continue
            for user, member in found.members.items():
                slot.learn(user, member)
            for user, highest in found.highest.items():
                if user not in slot.highest:
                    slot.highest[user] = max(highest, journal.highest.get(user, _NO_ID))
            for (user, client_message_id), seq in (found.known | journal.known).items():
                self._known[slot.conversation.id, user, client_message_id] = seq

    def append_state(self, batch: Sequence[Draft]) -> AppendState:
        """What a decision about these drafts needs to know."""
        conversations: dict[ConversationId, Conversation] = {}
        members: dict[ConversationId, Mapping[UserId, Member]] = {}
        for draft in batch:
            if draft.conversation in conversations:
                continue
            slot = self._state.slot(draft.conversation)
            if slot is not None:
                self._state.touch(slot)
                conversations[draft.conversation] = slot.conversation
                members[draft.conversation] = slot.members
        return AppendState(conversations, members, self._known)

    def _want(self, slot: Slot) -> Wanted:
        conversation = slot.conversation
        return self._wanted.setdefault(
            conversation.id, Wanted(id=conversation.id, key=conversation.key)
        )

    def _want_new(self, draft: Draft) -> None:
        wanted = self._wanted.setdefault(draft.conversation, Wanted(id=draft.conversation))
        wanted.users.update((draft.sender, *draft.users))
        wanted.senders.setdefault(draft.sender, set()).add(draft.client_message_id)
        if draft.fresh is not None:
            wanted.fresh_keys.add(draft.fresh.key)


def load(tables: Tables, wanted: Sequence[Wanted]) -> list[Loaded]:
    """Asks the tables (blocking); answers in the order of `wanted`."""
    return [_load_one(tables, item) for item in wanted]


def _load_one(tables: Tables, wanted: Wanted) -> Loaded:
    key = wanted.key
    if key is not None:
        conversation = tables.conversation_by_key(key)
    else:
        assert wanted.id is not None
        conversation = tables.conversation_by_id(wanted.id)
        if conversation is None:
            taken = any(tables.conversation_by_key(k) is not None for k in wanted.fresh_keys)
            return Loaded(None, {}, {}, {}, taken)
        key = conversation.key
    found = Loaded(conversation, {user: tables.member(key, user) for user in wanted.users}, {}, {})
    for user, asked in wanted.senders.items():
        highest = found.highest[user] = tables.highest_client_message_id(key, user)
        for client_message_id in asked:
            if client_message_id <= highest:
                seq = tables.known(key, user, client_message_id)
                if seq is not None:
                    found.known[user, client_message_id] = seq
    return found
