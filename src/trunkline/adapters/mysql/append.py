"""The append transaction of DESIGN section 3 on one database."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.lists import Line, Outbox
from trunkline.adapters.mysql.literals import literals, rows
from trunkline.adapters.mysql.rows import (
    conversation_columns,
    conversation_of,
    entry_columns,
    member_columns,
    member_of,
)
from trunkline.adapters.mysql.sql import statement
from trunkline.core.appending import (
    CONTENDED,
    AppendState,
    Decision,
    KnownIds,
    Outcome,
    Refused,
    move_markers,
    sent_markers,
)
from trunkline.core.ids import shard_hash
from trunkline.errors import ShardMoved
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
from trunkline.ports.hot import Decide

Conversations = dict[ConversationId, Conversation]
Members = dict[ConversationId, dict[UserId, Member]]


class Committing(msgspec.Struct, frozen=True):
    """What a transaction is about to commit; `told` is what users' lists hear of it after."""

    decision: Decision
    told: Sequence[Line]


class AppendTransaction:
    """One batch, from the locks to the last write; run again from the start after a deadlock."""

    def __init__(
        self, epochs: Epochs, outbox: Outbox, batch: Sequence[Draft], decide: Decide, *, wait: bool
    ) -> None:
        self._epochs = epochs
        self._outbox = outbox
        self._batch = batch
        self._decide = decide
        self._wait = wait

    async def __call__(self, connection: Connection) -> Committing:
        """Locks, reads, decides, writes."""
        moved = await self._epochs.moved(
            connection, {shard_hash(draft.conversation) for draft in self._batch}
        )
        keys = await _keys_of(connection, {draft.conversation for draft in self._batch})
        before = await self._locked(connection, keys)
        left_out: dict[int, Outcome] = {}
        drafts: list[Draft] = []
        for position, draft in enumerate(self._batch):
            if shard_hash(draft.conversation) in moved:
                left_out[position] = Refused(ShardMoved())
            elif draft.conversation in keys and draft.conversation not in before:
                left_out[position] = CONTENDED
            else:
                drafts.append(draft)
        members = await _members_of(connection, drafts, before)
        known = await _known(connection, drafts, before)
        decision = self._decide(drafts, AppendState(before, members, known))
        told = await self._write(connection, decision, before, members)
        return Committing(_with(decision, left_out), told)

    async def _locked(
        self, connection: Connection, keys: Mapping[ConversationId, ConversationKey]
    ) -> Conversations:
        """The rows, locked in key order; without those that others hold, unless it waits."""
        if not keys:
            return {}
        name = "conversations_locked" if self._wait else "conversations_free"
        text = statement(name, lists={"keys": literals(sorted(keys.values()))})
        found = map(conversation_of, await connection.rows(text))
        return {conversation.id: conversation for conversation in found}

    async def _write(
        self,
        connection: Connection,
        decision: Decision,
        before: Conversations,
        members_before: Members,
    ) -> Sequence[Line]:
        """Writes what was decided, every table in the order of its key."""
        writes = sorted(decision.writes, key=lambda write: write.conversation.key)
        if not writes:
            return ()
        created = [conversation_columns(w.conversation) for w in writes if w.created]
        changed = [conversation_columns(w.conversation) for w in writes if not w.created]
        await insert(connection, "conversation_insert", created)
        await insert(connection, "conversation_update", changed)
        entries = [(w.conversation.key, e) for w in writes for e in w.entries]
        await insert(
            connection, "idempotency_insert",
            sorted(
                (key, e.sender, e.client_message_id, e.seq)
                for key, e in entries
                if e.client_message_id
            ),
        )  # fmt: skip
        await insert(connection, "message_insert", [entry_columns(*entry) for entry in entries])
        members: list[tuple[int | str | bytes, ...]] = []
        lines: list[Line] = []
        waking: list[tuple[ConversationKey]] = []
        for write in writes:
            conversation = write.conversation
            after = dict(members_before.get(conversation.id, {})) | write.members
            move_markers(after, write.entries)
            touched = write.members.keys() | sent_markers(write.entries).keys()
            members += [member_columns(conversation.key, after[user]) for user in sorted(touched)]
            lines += [
                self._outbox.line(user, conversation.key, conversation.id) for user in write.members
            ]
            old = before.get(conversation.id)
            if old is None or old.head == old.archived_up_to:
                waking.append((conversation.key,))
        await insert(connection, "member_put", members)
        await insert(connection, "task_insert", waking)
        await self._outbox.write(connection, lines)
        return lines


async def insert(
    connection: Connection, name: str, values: Sequence[Iterable[int | str | bytes]]
) -> None:
    """Runs a statement that takes rows, if there are any."""
    if values:
        await connection.execute(statement(name, lists={"rows": rows(values)}))


def _with(decision: Decision, left_out: Mapping[int, Outcome]) -> Decision:
    """The decision with the outcomes of those drafts put in that it was not asked about."""
    if not left_out:
        return decision
    decided = iter(decision.outcomes)
    count = len(decision.outcomes) + len(left_out)
    outcomes = [left_out.get(position) or next(decided) for position in range(count)]
    return Decision(outcomes, decision.writes)


async def _keys_of(
    connection: Connection, ids: Collection[ConversationId]
) -> dict[ConversationId, ConversationKey]:
    found = await connection.rows(statement("keys_of", lists={"ids": literals(ids)}))
    return {ConversationId(name.decode()): ConversationKey(key) for name, key in found}


async def _members_of(
    connection: Connection, batch: Sequence[Draft], conversations: Conversations
) -> Members:
    pairs = {
        (row.key, user)
        for draft in batch
        if (row := conversations.get(draft.conversation)) is not None
        for user in (draft.sender, *draft.users)
    }
    members: Members = {conversation: {} for conversation in conversations}
    if pairs:
        ids = {row.key: row.id for row in conversations.values()}
        text = statement("members_of", lists={"pairs": rows(sorted(pairs))})
        for found in await connection.rows(text):
            member = member_of(found)
            members[ids[ConversationKey(found[0])]][member.user] = member
    return members


async def _known(
    connection: Connection, batch: Sequence[Draft], conversations: Conversations
) -> KnownIds:
    asked: dict[tuple[ConversationKey, UserId], set[ClientMessageId]] = defaultdict(set)
    for draft in batch:
        row = conversations.get(draft.conversation)
        if row is not None:
            asked[row.key, draft.sender].add(draft.client_message_id)
    if not asked:
        return {}
    ids = {row.key: row.id for row in conversations.values()}
    pairs = " OR ".join(
        statement("known_pair", key=key, sender=sender, lists={"ids": literals(sorted(names))})
        for (key, sender), names in sorted(asked.items())
    )
    found = await connection.rows(statement("known", lists={"identities": pairs}))
    return {
        (ids[key], UserId(sender.decode()), ClientMessageId(name.decode())): Seq(seq)
        for key, sender, name, seq in found
    }
