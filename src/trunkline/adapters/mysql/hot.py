"""The hot store over all databases: each question goes to whoever holds the shard."""

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Final

from trunkline.adapters.mysql.append import (
    AppendTransaction,
    Committing,
    ConversationKeys,
    insert,
)
from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.lists import Line, Outbox, conversations_of
from trunkline.adapters.mysql.literals import bracketed, keys, literals, rows
from trunkline.adapters.mysql.rows import (
    CONVERSATION_COLUMNS,
    conversation_of,
    entry_of,
    member_of,
    member_row,
)
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.core.appending import Decision, Outcome, Refused
from trunkline.core.ids import shard_hash, shard_of
from trunkline.core.lanes import Lanes
from trunkline.errors import DataDamaged, OutcomeUnknown, ShardMoved, TrunklineError
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)
from trunkline.ports.hot import Decide
from trunkline.ports.readings import Reading

_IDS_A_QUERY: Final = 1_000
_TRIMMED_AT_ONCE: Final = 256
"""So long is a conversation held; its sends go on in the second lane meanwhile."""


class MysqlHotStore:
    """A `ports.hot.HotStore`.

    Attributes:
        lanes: the databases: what goes to one is written beside what goes to another.
    """

    def __init__(
        self, shards: ShardMap[Database], epochs: Mapping[Database, Epochs], outbox: Outbox
    ) -> None:
        self._shards = shards
        self._epochs = epochs
        self._outbox = outbox
        self._unsettled: dict[Database, set[ConversationId]] = {
            database: set() for database in shards.all
        }
        self.lanes = Lanes([database.name for database in shards.all], shards.lanes())
        self._keys = ConversationKeys()

    def readings(self) -> list[Reading]:
        """What is open after lost answers, and what was taken away."""
        return [
            Reading("trunkline_hot_unsettled", "", lambda: sum(map(len, self._unsettled.values()))),
            *(reading for epochs in self._epochs.values() for reading in epochs.readings()),
        ]

    # --- writing ------------------------------------------------------------------------

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """Appends a batch, see the port; one transaction for each database in it.

        Where a batch concerns many databases, what one of them refuses is refused in the
        outcomes, since the others may have committed. An empty batch settles what had an
        unknown outcome.
        """
        if not batch:
            for database in self._shards.all:
                await self._settle(database)
        parts: dict[Database, list[int]] = {}
        for position, draft in enumerate(batch):
            parts.setdefault(self._shards.of_conversation(draft.conversation), []).append(position)
        if len(parts) == 1:
            return await self._append(next(iter(parts)), batch, decide, wait=wait)
        decisions = await asyncio.gather(
            *(
                self._append(database, [batch[p] for p in positions], decide, wait=wait)
                for database, positions in parts.items()
            ),
            return_exceptions=True,
        )
        outcomes: dict[int, Outcome] = {}
        writes = []
        for positions, decision in zip(parts.values(), decisions, strict=True):
            if isinstance(decision, TrunklineError):
                outcomes |= dict.fromkeys(positions, Refused(decision))
            elif isinstance(decision, BaseException):
                raise decision
            else:
                outcomes |= zip(positions, decision.outcomes, strict=True)
                writes += decision.writes
        return Decision([outcomes[position] for position in range(len(batch))], writes)

    async def _append(
        self, database: Database, batch: Sequence[Draft], decide: Decide, *, wait: bool
    ) -> Decision:
        await self._settle(database)
        epochs = self._epochs[database]
        work = AppendTransaction(epochs, self._keys, self._outbox, batch, decide, wait=wait)
        try:
            committed: Committing = await database.transaction(work)
        except (OutcomeUnknown, asyncio.CancelledError):
            self._unsettled[database].update(draft.conversation for draft in batch)
            raise
        epochs.learn(committed.epochs)
        await self._outbox.tell(database, committed.told)
        return committed.decision

    async def _settle(self, database: Database) -> None:
        """Makes sure that what had an unknown outcome is either there or never will be.

        A lost session may still be committing: the locks of its conversations tell when it is
        not. The transaction writes, so that its commit is confirmed as that one would be.
        """
        unsettled = self._unsettled[database]
        if not unsettled:
            return
        ids = sorted(unsettled)

        async def work(connection: Connection) -> None:
            await connection.rows(statement("conversations_settled", lists={"ids": literals(ids)}))
            await self._outbox.touch(connection)

        await database.transaction(work)
        unsettled.difference_update(ids)

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """Moves markers and offsets forward; a lower value changes nothing (I9).

        What stands in a shard that was taken over is left out (I11), as is what a database
        does not take; the rest is stored. Then it raises `ShardMoved`, or that database's error.
        """
        highest: dict[tuple[ConversationKey, UserId], MarkerMove] = {}
        for move in markers:
            other = highest.get((move.key, move.user))
            if other is None or other.seq < move.seq:
                highest[move.key, move.user] = move
        recording: list[Awaitable[Collection[ShardMoved]]] = []
        for database, held in self._shards.by_key({key for key, _ in highest}).items():
            there = set(held)
            moves = {pair: move for pair, move in highest.items() if move.key in there}
            recording.append(self._move_markers(database, moves))
        for database, users in self._shards.by_user({move.user for move in offsets}).items():
            concerned = set(users)
            recording.append(
                self._raise_offsets(database, [move for move in offsets if move.user in concerned])
            )
        ended = await asyncio.gather(*recording, return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException):
                raise one
            for refused in one:
                raise refused

    async def _raise_offsets(
        self, database: Database, moves: Sequence[OffsetMove]
    ) -> Collection[ShardMoved]:
        shards = {move.user: shard_hash(move.user) for move in moves}

        async def work(
            connection: Connection, moved: Mapping[int, ShardMoved]
        ) -> Collection[ShardMoved]:
            values = sorted(
                (move.user, move.endpoint, move.key, move.seq)
                for move in moves
                if shards[move.user] not in moved
            )
            await insert(connection, "offset_put", [bracketed(value) for value in values])
            return moved.values()

        return await self._epochs[database].transaction(set(shards.values()), work)

    async def _move_markers(
        self, database: Database, moves: Mapping[tuple[ConversationKey, UserId], MarkerMove]
    ) -> Collection[ShardMoved]:
        async def work(
            connection: Connection, moved: Mapping[int, ShardMoved]
        ) -> tuple[Sequence[Line], Collection[ShardMoved]]:
            held = {pair: move for pair, move in moves.items() if shard_of(move.key) not in moved}
            return await self._write_markers(connection, held) if held else (), moved.values()

        shards = {shard_of(key) for key, _ in moves}
        lines, refused = await self._epochs[database].transaction(shards, work)
        await self._outbox.tell(database, lines)
        return refused

    async def _write_markers(
        self,
        connection: Connection,
        moves: Mapping[tuple[ConversationKey, UserId], MarkerMove],
    ) -> Sequence[Line]:
        wanted = {"keys": keys(sorted({key for key, _ in moves}))}
        locked = await connection.rows(statement("conversations_locked", lists=wanted))
        conversations = {found.key: found for found in map(conversation_of, locked)}
        pairs = rows(sorted(moves))
        values = []
        lines = []
        for found in await connection.rows(statement("members_of", lists={"pairs": pairs})):
            key, member = ConversationKey(found[0]), member_of(found)
            move, conversation = moves[key, member.user], conversations.get(key)
            if conversation is not None and member.marker < move.seq <= conversation.head:
                values.append(member_row(key, member.marked(move.seq, move.countable)))
                lines.append(self._outbox.line(member.user, key, conversation.id))
        await insert(connection, "member_put", values)
        await self._outbox.write(connection, lines)
        return lines

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """Drops entries 1..seq of each conversation; never beyond what is archived (I10)."""
        for key, up_to in trims:

            async def step(
                connection: Connection, key: ConversationKey = key, up_to: Seq = up_to
            ) -> int:
                # Together: entries that are there and count as gone nobody would come back for.
                marked = statement("trimmed", key=key, up_to=up_to, most=_TRIMMED_AT_ONCE)
                moved = await connection.execute(marked)
                await connection.execute(statement("message_trim", key=key))
                return moved

            while await self._shards.of_key(key).transaction(step):
                pass

    # --- reading ------------------------------------------------------------------------
    # What is known to be gone raises `ShardMoved`: what is left of it here is old, and nothing
    # at all would look like a conversation, or a list, that does not exist.

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """Row and the user's member row of those conversations that know the user."""
        self._check_held(map(shard_hash, ids))
        questions = [
            (database, statement("views", user=user, lists={"ids": literals(part)}))
            for database, there in self._shards.by_conversation(ids).items()
            for part in _parts(there)
        ]
        answers = await asyncio.gather(*(database.query(text) for database, text in questions))
        found: dict[ConversationId, tuple[Conversation, Member]] = {}
        for answer in answers:
            for row in answer:
                conversation = conversation_of(row[:CONVERSATION_COLUMNS])
                found[conversation.id] = (conversation, member_of(row[CONVERSATION_COLUMNS:]))
        return found

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """All members, present and gone."""
        self._check_held((shard_of(key),))
        found = await self._shards.of_key(key).query(statement("members", key=key))
        return {member.user: member for member in map(member_of, found)}

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of after+1..up_to_inclusive that was not trimmed.

        One statement, so that the row and its entries are of one moment. Raises
        `DataDamaged` where an entry is missing: nothing is answered short (I8).
        """
        self._check_held((shard_of(key),))
        database = self._shards.of_key(key)
        found = await database.query(statement("part", key=key, after=after, up_to=up_to_inclusive))
        if not found:
            return ()
        head, trimmed = found[0][:2]
        entries = [entry_of(row[2:]) for row in found if row[2] is not None]
        first, last = max(after, trimmed) + 1, min(up_to_inclusive, head)
        if len(entries) != max(0, last + 1 - first):
            raise DataDamaged(
                f"I1: {database.name} holds {len(entries)} of the entries {first} to {last} "
                f"of {key:016x}."
            )
        return entries

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        """Rows of those conversations that exist, in the keys' order: a `ports.heads.Heads`."""
        self._check_held(map(shard_of, keys))
        answers = await asyncio.gather(
            *(
                database.query(statement("conversations", lists={"keys": literals(there)}))
                for database, there in self._shards.by_key(keys).items()
            )
        )
        found = {row.key: row for answer in answers for row in map(conversation_of, answer)}
        return [found[key] for key in keys if key in found]

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """The user's list with version > `changed_after`, oldest change first."""
        self._check_held((shard_hash(user),))
        return await conversations_of(self._shards.of_user(user), user, changed_after)

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """The read offsets that are durable for one endpoint."""
        self._check_held((shard_hash(user),))
        text = statement("offsets", user=user, endpoint=endpoint)
        found = await self._shards.of_user(user).query(text)
        return {ConversationKey(key): Seq(seq) for key, seq in found}

    def _check_held(self, shards: Iterable[int]) -> None:
        losing = [epochs for epochs in self._epochs.values() if epochs.gone]
        if losing:
            asked = set(shards)
            for epochs in losing:
                epochs.check(asked)


def _parts(ids: Sequence[ConversationId]) -> Sequence[Sequence[ConversationId]]:
    return [ids[start : start + _IDS_A_QUERY] for start in range(0, len(ids), _IDS_A_QUERY)]
