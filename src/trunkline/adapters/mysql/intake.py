"""Takes over what another hot store holds: a conversation is one transaction."""

import asyncio
from collections.abc import Mapping, Sequence

from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.bulk import insert
from trunkline.adapters.mysql.connection import Connection, DuplicateKey
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.literals import bracketed, literals
from trunkline.adapters.mysql.literals import keys as key_list
from trunkline.adapters.mysql.rows import (
    conversation_of,
    conversation_row,
    entry_row,
    known_id_row,
    member_row,
)
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.core.compact import short_id
from trunkline.core.ids import shard_of
from trunkline.errors import ShardMoved, TargetNotEmpty
from trunkline.model import Conversation, ConversationKey, OffsetMove, UserId
from trunkline.ports.inspection import HotInspection, Listing


class MysqlIntake:
    """A `ports.intake.HotIntake`."""

    def __init__(
        self,
        shards: ShardMap[Database],
        epochs: Mapping[Database, Epochs],
        ages: Mapping[Database, Age],
    ) -> None:
        self._shards = shards
        self._ages = ages
        self._epochs = epochs

    async def held(self, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
        """Rows that have the id or the key of one of these."""
        ids = self._shards.by_conversation(c.id for c in conversations)
        keys = self._shards.by_key(c.key for c in conversations)
        questions = [
            (database, statement("conversations_by_id", lists={"ids": literals(there)}))
            for database, there in ids.items()
        ] + [
            (database, statement("conversations", lists={"keys": key_list(there)}))
            for database, there in keys.items()
        ]
        answers = await asyncio.gather(*(database.query(text) for database, text in questions))
        found = {row.key: row for answer in answers for row in map(conversation_of, answer)}
        return list(found.values())

    async def take_lists(
        self, listings: Mapping[ConversationKey, Sequence[Listing]], offsets: Sequence[OffsetMove]
    ) -> None:
        """Takes lists and offsets into the databases of their users, one transaction each."""
        lines = [(line.user, key, line) for key, there in listings.items() for line in there]
        users = {user for user, _, _ in lines} | {move.user for move in offsets}
        for database, held in self._shards.by_user(users).items():
            here = set(held)
            versions: dict[UserId, int] = {}
            for user, _, line in lines:
                if user in here:
                    versions[user] = max(line.version, versions.get(user, 0))
            # Versions first, as whoever changes a list does: so nobody waits in a circle.
            rows_of: dict[str, Sequence[tuple[str | int, ...]]] = {
                "user_version_reach": sorted(versions.items()),
                "user_conversation_reach": sorted(
                    (user, key, line.conversation, line.version)
                    for user, key, line in lines
                    if user in here
                ),
                "offset_put": sorted(
                    (move.user, move.endpoint, move.key, move.seq)
                    for move in offsets
                    if move.user in here
                ),
            }

            async def work(
                connection: Connection,
                rows_of: Mapping[str, Sequence[tuple[str | int, ...]]] = rows_of,
            ) -> None:
                for name, values in rows_of.items():
                    await insert(connection, name, [bracketed(value) for value in values])

            await database.transaction(work)

    async def take(self, conversation: Conversation, source: HotInspection) -> None:
        """Takes a conversation in one transaction; the source is read anew at each try."""
        key, shard = conversation.key, shard_of(conversation.key)
        database = self._shards.of_key(key)
        epochs, stamp = self._epochs[database], self._ages[database].stamp

        async def work(connection: Connection, moved: Mapping[int, ShardMoved]) -> None:
            for refusal in moved.values():
                raise refusal
            try:
                await insert(connection, "conversation_insert", [conversation_row(conversation)])
            except DuplicateKey:
                raise TargetNotEmpty(
                    f"The conversation {conversation.id} was made meanwhile."
                ) from None
            await insert(
                connection, "member_put", [member_row(key, m) for m in await source.members(key)]
            )
            async for entries in source.entries(key):
                await insert(connection, "message_insert", [entry_row(key, e) for e in entries])
            async for known in source.known_ids(key):
                rows = [
                    known_id_row(key, k.sender, short_id(k.client_message_id), k.seq, stamp)
                    for k in known
                ]
                await insert(connection, "idempotency_insert", rows)
            if conversation.head > conversation.archived_up_to:
                await insert(connection, "task_insert", [f"({key})"])

        await epochs.transaction({shard}, work)
