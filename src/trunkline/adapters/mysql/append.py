"""The append transaction of DESIGN section 3 on one database."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import msgspec

from trunkline.adapters.mysql.bulk import inserts, listed
from trunkline.adapters.mysql.connection import Connection, DuplicateKey, Row
from trunkline.adapters.mysql.deployment import AGREED_KEK
from trunkline.adapters.mysql.epochs import Epochs, Found
from trunkline.adapters.mysql.keys import check_fence
from trunkline.adapters.mysql.lists import Line, Outbox
from trunkline.adapters.mysql.literals import bracketed, literals
from trunkline.adapters.mysql.literals import keys as key_list
from trunkline.adapters.mysql.rows import (
    conversation_of,
    conversation_row,
    entry_row,
    known_id_row,
    member_of,
    member_row,
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
from trunkline.core.compact import long_id, short_id
from trunkline.core.ids import shard_hash
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    Member,
    Seq,
    UserId,
)
from trunkline.ports.hot import Decide

_KEYS_KEPT: Final = 65_536

Conversations = dict[ConversationId, Conversation]
Members = dict[ConversationId, dict[UserId, Member]]


class Committing(msgspec.Struct, frozen=True):
    """What a transaction is about to commit, behind the epochs that it found; `told` is what
    users' lists hear of it after.
    """

    decision: Decision
    told: Sequence[Line]
    epochs: Found


class ConversationKeys:
    """Keys of conversations by id, as many as are used a lot: they never change."""

    def __init__(self) -> None:
        self._keys: dict[ConversationId, ConversationKey] = {}

    def of(self, ids: Collection[ConversationId]) -> dict[ConversationId, ConversationKey]:
        """Those that are known."""
        return {name: self._keys[name] for name in ids if name in self._keys}

    def learn(self, keys: Mapping[ConversationId, ConversationKey]) -> None:
        """Keys of rows that were committed."""
        for name, key in keys.items():
            if len(self._keys) >= _KEYS_KEPT:
                del self._keys[next(iter(self._keys))]
            self._keys[name] = key

    def forget(self, ids: Collection[ConversationId]) -> None:
        """Their rows are gone."""
        for name in ids:
            self._keys.pop(name, None)


class AppendTransaction:
    """One batch, from the locks to the last write; run again from the start after a deadlock."""

    def __init__(
        self,
        epochs: Epochs,
        keys: ConversationKeys,
        outbox: Outbox,
        batch: Sequence[Draft],
        decide: Decide,
        *,
        stamp: int,
        wait: bool,
    ) -> None:
        """`stamp`: what client message ids grow old from, see `age`."""
        self._epochs = epochs
        self._keys = keys
        self._outbox = outbox
        self._batch = batch
        self._decide = decide
        self._stamp = stamp
        self._wait = wait

    async def __call__(self, connection: Connection) -> Committing:
        """Locks, reads, decides, writes."""
        shards = {name: shard_hash(name) for name in {draft.conversation for draft in self._batch}}
        found, held, before, members = await self._lock(connection, shards)
        moved = self._epochs.moved(found)
        left_out: dict[int, Outcome] = {}
        drafts: list[Draft] = []
        for position, draft in enumerate(self._batch):
            if (refusal := moved.get(shards[draft.conversation])) is not None:
                left_out[position] = Refused(refusal)
            elif draft.conversation in held:
                left_out[position] = CONTENDED
            else:
                drafts.append(draft)
        decision, told = await self._stored(connection, drafts, before, members)
        return Committing(_with(decision, left_out), told, found)

    async def _stored(
        self,
        connection: Connection,
        drafts: Sequence[Draft],
        before: Conversations,
        members: Members,
    ) -> tuple[Decision, Sequence[Line]]:
        """The decision, which is written, and what users' lists hear of it.

        Hardly any batch holds a resend: to ask the table for every id would cost each batch
        more than a second decision costs this one. It is asked if an id turns out to be taken
        (only that statement was undone), or if a draft is refused, which may be a resend of
        one that was not.
        """
        decision = self._decide(drafts, AppendState(before, members, {}))
        if not any(isinstance(outcome, Refused) for outcome in decision.outcomes):
            try:
                return decision, await self._write(connection, decision, before, members)
            except DuplicateKey as error:
                if error.done:  # what is written of this decision must be undone
                    raise
        known = await _known(connection, drafts, before)
        decision = self._decide(drafts, AppendState(before, members, known))
        return decision, await self._write(connection, decision, before, members)

    async def _lock(
        self, connection: Connection, shards: Mapping[ConversationId, int]
    ) -> tuple[Found, set[ConversationId], Conversations, Members]:
        """The epochs found; the conversations that others hold; the rows of the others, locked
        in key order, and those members of them whom the batch concerns. The epochs are read
        before anything else, the members after their conversation is locked.
        """
        epochs = self._epochs.locking(set(shards.values()))
        keys = self._keys.of(shards)
        asked = shards.keys() - keys.keys()
        if asked:
            names = {"ids": literals(sorted(asked))}
            found, new = await connection.rows_of_each((epochs, statement("keys_of", lists=names)))
            learnt = {ConversationId(name.decode()): ConversationKey(key) for name, key in new}
            self._keys.learn(learnt)
            keys |= learnt
            locked, *members = (
                await connection.rows_of_each((self._locking(keys), *self._members(keys)))
                if keys
                else ((),)
            )
        else:
            found, locked, *members = await connection.rows_of_each(
                (epochs, self._locking(keys), *self._members(keys))
            )
        before = {row.id: row for row in map(conversation_of, locked)}
        missing = keys.keys() - before.keys()
        if self._wait:  # a row that was waited for and did not come is gone
            self._keys.forget(missing)
            missing = set()
        return (
            self._epochs.found(set(shards.values()), found),
            missing,
            before,
            _members_by_conversation(before, chain.from_iterable(members)),
        )

    def _locking(self, keys: Mapping[ConversationId, ConversationKey]) -> str:
        """Without those that others hold, unless it waits."""
        name = "conversations_locked" if self._wait else "conversations_free"
        return statement(name, lists={"keys": key_list(sorted(keys.values()))})

    def _members(self, keys: Mapping[ConversationId, ConversationKey]) -> list[str]:
        """Those whom the drafts to these conversations are from or concern."""
        pairs = {
            (key, user)
            for draft in self._batch
            if (key := keys.get(draft.conversation)) is not None
            for user in (draft.sender, *draft.users)
        }
        return listed("members_of", "pairs", map(bracketed, sorted(pairs)))

    async def _write(
        self,
        connection: Connection,
        decision: Decision,
        before: Conversations,
        members_before: Members,
    ) -> Sequence[Line]:
        """Writes what was decided, every table in the order of its key, the client message ids
        first: if one is taken it raises `DuplicateKey`, and nothing was written.
        """
        writes = sorted(decision.writes, key=lambda write: write.conversation.key)
        if not writes:
            return ()
        members: list[str] = []
        lines: list[Line] = []
        waking: list[str] = []
        for write in writes:
            conversation = write.conversation
            after = dict(members_before.get(conversation.id, {})) | write.members
            move_markers(after, write.entries)
            touched = write.members.keys() | sent_markers(write.entries).keys()
            members += [member_row(conversation.key, after[user]) for user in sorted(touched)]
            lines += [
                self._outbox.line(user, conversation.key, conversation.id) for user in write.members
            ]
            old = before.get(conversation.id)
            if old is None or old.head == old.archived_up_to:
                waking.append(f"({conversation.key})")
        rows_of = {
            "idempotency_insert": _claims(decision, self._stamp),
            "conversation_insert": [conversation_row(w.conversation) for w in writes if w.created],
            "conversation_update": [
                conversation_row(w.conversation) for w in writes if not w.created
            ],
            "message_insert": [entry_row(w.conversation.key, e) for w in writes for e in w.entries],
            "member_put": members,
            "task_insert": waking,
            "outbox_insert": self._outbox.rows(lines),
        }
        texts = [text for name, rows in rows_of.items() for text in inserts(connection, name, rows)]
        if rows_of["conversation_insert"]:
            texts.append(statement("deployment_shared", key=AGREED_KEK))
            check_fence((await connection.rows_of_each(texts))[-1], writes)
        else:
            await connection.rows_of_each(texts)
        return lines


def _claims(decision: Decision, stamp: int) -> list[str]:
    """The idempotency rows, in key order."""
    claims = sorted(
        (write.conversation.key, entry.sender, short_id(entry.client_message_id), entry.seq)
        for write in decision.writes
        for entry in write.entries
        if entry.client_message_id
    )
    return [known_id_row(*claim, stamp) for claim in claims]


def _with(decision: Decision, left_out: Mapping[int, Outcome]) -> Decision:
    """The decision with the outcomes of those drafts put in that it was not asked about."""
    if not left_out:
        return decision
    decided = iter(decision.outcomes)
    count = len(decision.outcomes) + len(left_out)
    outcomes = [left_out.get(position) or next(decided) for position in range(count)]
    return Decision(outcomes, decision.writes)


def _members_by_conversation(conversations: Conversations, found: Iterable[Row]) -> Members:
    """Rows of members by conversation; those of conversations that are not held are left out."""
    ids = {row.key: row.id for row in conversations.values()}
    members: Members = {conversation: {} for conversation in conversations}
    for row in found:
        if (conversation := ids.get(ConversationKey(row[0]))) is not None:
            member = member_of(row)
            members[conversation][member.user] = member
    return members


async def _known(
    connection: Connection, batch: Sequence[Draft], conversations: Conversations
) -> KnownIds:
    asked: dict[tuple[ConversationKey, UserId], set[bytes]] = defaultdict(set)
    for draft in batch:
        row = conversations.get(draft.conversation)
        if row is not None:
            asked[row.key, draft.sender].add(short_id(draft.client_message_id))
    if not asked:
        return {}
    ids = {row.key: row.id for row in conversations.values()}
    pairs = " OR ".join(
        statement("known_pair", key=key, sender=sender, lists={"ids": literals(sorted(names))})
        for (key, sender), names in sorted(asked.items())
    )
    found = await connection.rows(statement("known", lists={"identities": pairs}))
    return {
        (ids[key], UserId(sender.decode()), long_id(name)): Seq(seq)
        for key, sender, name, seq in found
    }
