"""The hot store over all databases: each question goes to whoever holds the shard."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, TypeVar

from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.append import AppendTransaction, Committing, ConversationKeys
from trunkline.adapters.mysql.bulk import found, insert, listed
from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.lists import Line, Outbox, conversations_of
from trunkline.adapters.mysql.literals import bracketed, literal
from trunkline.adapters.mysql.literals import key as key_literal
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
from trunkline.core.unsettled import Unsettled
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

T = TypeVar("T")

_MARKERS_AT_ONCE: Final = 1_000
"""So many markers are one transaction, which holds their conversations."""
_OFFSETS_AT_ONCE: Final = 5_000
_TRIMMED_AT_ONCE: Final = 256
"""So long is a conversation held; its sends go on in the second lane meanwhile."""


class MysqlHotStore:
    """A `ports.hot.HotStore`.

    Attributes:
        lanes: the databases: what goes to one is written beside what goes to another.
    """

    def __init__(
        self,
        shards: ShardMap[Database],
        epochs: Mapping[Database, Epochs],
        ages: Mapping[Database, Age],
        outbox: Outbox,
    ) -> None:
        self._shards = shards
        self._ages = ages
        self._epochs = epochs
        self._outbox = outbox
        self._unsettled: dict[Database, Unsettled[ConversationId]] = {
            database: Unsettled() for database in shards.all
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
        work = AppendTransaction(
            epochs, self._keys, self._outbox, batch, decide,
            stamp=self._ages[database].stamp, wait=wait,
        )  # fmt: skip
        try:
            committed: Committing = await database.transaction(work)
        except (OutcomeUnknown, asyncio.CancelledError):
            self._unsettled[database].add(draft.conversation for draft in batch)
            raise
        epochs.learn(committed.epochs)
        await self._outbox.tell(database, committed.told)
        return committed.decision

    async def _settle(self, database: Database) -> None:
        """Makes sure that what had an unknown outcome is either there or never will be.

        A lost session may still be committing: the locks of its conversations tell when it is
        not. The transaction writes, so that its commit is confirmed as that one would be.
        """
        before = self._unsettled[database].now()
        if not before:
            return
        ids = sorted(before)

        async def work(connection: Connection) -> None:
            await found(connection, "conversations_settled", "ids", map(literal, ids))
            await self._outbox.touch(connection)

        await database.transaction(work)
        self._unsettled[database].settle(before)

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
            moves = [move for move in highest.values() if move.key in there]
            recording.append(self._in_turn(self._move_markers, database, moves, _MARKERS_AT_ONCE))
        for database, users in self._shards.by_user({move.user for move in offsets}).items():
            concerned = set(users)
            raised = [move for move in offsets if move.user in concerned]
            recording.append(self._in_turn(self._raise_offsets, database, raised, _OFFSETS_AT_ONCE))
        ended = await asyncio.gather(*recording, return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException):
                raise one
            for refused in one:
                raise refused

    async def _in_turn(
        self,
        record: Callable[[Database, Sequence[T]], Awaitable[Collection[ShardMoved]]],
        database: Database,
        moves: Sequence[T],
        most: int,
    ) -> Collection[ShardMoved]:
        """Records moves in transactions of so many each; what was refused of all of them."""
        parts = [moves[start : start + most] for start in range(0, len(moves), most)]
        return [refused for part in parts for refused in await record(database, part)]

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
        self, database: Database, moves: Sequence[MarkerMove]
    ) -> Collection[ShardMoved]:
        async def work(
            connection: Connection, moved: Mapping[int, ShardMoved]
        ) -> tuple[Sequence[Line], Collection[ShardMoved]]:
            held = {
                (move.key, move.user): move for move in moves if shard_of(move.key) not in moved
            }
            return await self._write_markers(connection, held) if held else (), moved.values()

        shards = {shard_of(move.key) for move in moves}
        lines, refused = await self._epochs[database].transaction(shards, work)
        await self._outbox.tell(database, lines)
        return refused

    async def _write_markers(
        self,
        connection: Connection,
        moves: Mapping[tuple[ConversationKey, UserId], MarkerMove],
    ) -> Sequence[Line]:
        wanted = map(key_literal, sorted({key for key, _ in moves}))
        locked = await found(connection, "conversations_locked", "keys", wanted)
        conversations = {row.key: row for row in map(conversation_of, locked)}
        values = []
        lines = []
        for row in await found(connection, "members_of", "pairs", map(bracketed, sorted(moves))):
            key, member = ConversationKey(row[0]), member_of(row)
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
        rows = await _asked(
            (database, listed("views", "ids", map(literal, there), user=user))
            for database, there in self._shards.by_conversation(ids).items()
        )
        views: dict[ConversationId, tuple[Conversation, Member]] = {}
        for row in rows:
            conversation = conversation_of(row[:CONVERSATION_COLUMNS])
            views[conversation.id] = (conversation, member_of(row[CONVERSATION_COLUMNS:]))
        return views

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
        rows = await _asked(
            (database, listed("conversations", "keys", map(key_literal, there)))
            for database, there in self._shards.by_key(keys).items()
        )
        there = {row.key: row for row in map(conversation_of, rows)}
        return [there[key] for key in keys if key in there]

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """The user's list with version > `changed_after`, oldest change first.

        It holds all that was acknowledged before it is asked for, told by then or not.
        """
        self._check_held((shard_hash(user),))
        await self._outbox.tell_user(user)
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


async def _asked(questions: Iterable[tuple[Database, Sequence[str]]]) -> Iterable[Row]:
    """The rows of all answers; no more questions are under way than sessions read."""
    answers = await asyncio.gather(
        *(database.query(text) for database, texts in questions for text in texts)
    )
    return chain.from_iterable(answers)
