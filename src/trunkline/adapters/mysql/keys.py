"""Wrapped keys in the conversations' rows: counted, replaced, destroyed, under their locks."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import AGREED_KEK, SENTINEL, agree, agreed, locked, put
from trunkline.adapters.mysql.lists import Line, Outbox
from trunkline.adapters.mysql.literals import keys as key_list
from trunkline.adapters.mysql.literals import literals
from trunkline.adapters.mysql.rows import conversation_of, member_of
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.core.appending import ConversationWrite
from trunkline.core.envelope import WRAPPED_HEADER_BYTES, kek_of, wrapped_header
from trunkline.core.member_macs import MemberMacs
from trunkline.errors import KeyringBehind, StorageUnavailable, StoreNotMigrated
from trunkline.model import Conversation, ConversationId, ConversationKey

_RUN: Final = 64
"""Rows that a transaction changes: few, since whoever sends to them waits for it."""


class MysqlKeys:
    """A `ports.keys.WrappedKeys` and a `ports.keys.KeyAgreement` over all databases."""

    def __init__(self, shards: ShardMap[Database], outbox: Outbox) -> None:
        self._shards = shards
        self._outbox = outbox

    # --- wrapped keys ---------------------------------------------------------------------

    async def counts(self) -> Mapping[str, Mapping[int, int]]:
        """Conversations by KEK, per database; each reads its table of conversations once."""
        found: dict[str, dict[int, int]] = {}
        for database in self._shards.all:
            counted = found[database.name] = {}
            for header, count in await database.query(
                statement("keks", bytes=WRAPPED_HEADER_BYTES)
            ):
                kek_id = kek_of(bytes(header))
                counted[kek_id] = counted.get(kek_id, 0) + count
        return found

    async def wrapped_otherwise(self, kek_id: int) -> AsyncIterator[Sequence[Conversation]]:
        """Rows that another KEK wraps, in key order, one database after the other."""
        for database in self._shards.all:
            after = -1
            while True:
                text = statement(
                    "wrapped_otherwise", first=after + 1, bytes=WRAPPED_HEADER_BYTES,
                    header=wrapped_header(kek_id), limit=_RUN,
                )  # fmt: skip
                rows = [conversation_of(row) for row in await database.query(text)]
                if rows:
                    yield rows
                if len(rows) < _RUN:
                    break
                after = rows[-1].key

    async def rewrap(
        self, changes: Sequence[tuple[Conversation, bytes]], macs: MemberMacs | None = None
    ) -> Sequence[Conversation]:
        """Replaces wrapped keys that still are the ones given, in key order, as appends lock."""
        new = {row.key: (row.wrapped_key, wrapped) for row, wrapped in changes}
        after: list[Conversation] = []
        for database, keys in self._shards.by_key(sorted(new)).items():

            async def work(
                connection: Connection, keys: Sequence[ConversationKey] = keys
            ) -> Sequence[Row]:
                *_, found = await connection.rows_of_each(
                    [
                        *(
                            statement("rewrap", key=key, old=new[key][0], new=new[key][1])
                            for key in keys
                        ),
                        statement("conversations_locked", lists={"keys": key_list(keys)}),
                    ]
                )
                if macs is not None:
                    for key in keys:
                        await _authenticate(connection, key, macs)
                return found

            after += map(conversation_of, await database.transaction(work))
        return after

    async def find(self, conversation: ConversationId) -> Conversation | None:
        """The conversation's row."""
        database = self._shards.of_conversation(conversation)
        text = statement("conversations_by_id", lists={"ids": literals([conversation])})
        found = await database.query(text)
        return conversation_of(found[0]) if found else None

    async def shred(self, conversation: Conversation) -> None:
        """Empties the wrapped key; once it returns, no read of the row can open anything."""
        key, database = conversation.key, self._shards.of_key(conversation.key)

        async def work(connection: Connection) -> Sequence[Line]:
            one = {"keys": key_list([key])}
            await connection.rows(statement("conversations_locked", lists=one))
            members = [
                member_of(row) for row in await connection.rows(statement("members", key=key))
            ]
            await connection.execute(statement("shred", key=key))
            await connection.execute(statement("task_delete", lists=one))
            lines = [self._outbox.line(m.user, key, conversation.id) for m in members]
            await self._outbox.write(connection, lines)
            return lines

        await self._outbox.tell(database, await database.transaction(work))

    # --- agreement ------------------------------------------------------------------------

    async def sentinel(self) -> bytes:
        """What the first database keeps; while it does not answer, the copy of another."""
        failure: StorageUnavailable | None = None
        for database in self._shards.all:
            try:
                if sentinel := await agreed(database, SENTINEL):
                    return sentinel
            except StorageUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return b""

    async def agree(self, old: bytes, new: bytes) -> bytes:
        """Replaces the sentinel under its lock, then the copies."""

        async def work(connection: Connection) -> bytes:
            found = await locked(connection, SENTINEL) or b""
            if found != old:
                return found
            await put(connection, SENTINEL, new)
            return new

        stands = await self._shards.all[0].transaction(work)
        await self._copy(stands)
        return stands

    async def _copy(self, sentinel: bytes) -> None:
        async def work(connection: Connection) -> None:
            if await locked(connection, SENTINEL) != sentinel:
                await put(connection, SENTINEL, sentinel)

        for database in self._shards.all[1:]:
            await agree(database, SENTINEL, sentinel)
            await database.transaction(work)

    async def fence(self, kek_id: int) -> None:
        """Raises the least KEK of each database, once what creates conversations has ended."""

        async def work(connection: Connection) -> None:
            found = await locked(connection, AGREED_KEK)
            if found is None:
                raise StoreNotMigrated
            if int(found) < kek_id:
                await put(connection, AGREED_KEK, b"%d" % kek_id)

        for database in self._shards.all:
            await database.transaction(work)
        await self._copy(await self.sentinel())


async def _authenticate(connection: Connection, key: ConversationKey, macs: MemberMacs) -> None:
    """Gives the members' rows of a conversation, whose lock is held, their MACs."""
    for row in await connection.rows(statement("members", key=key)):
        member = member_of(row)
        mac = macs.of(key, member)
        await connection.execute(statement("member_mac", key=key, user=member.user, mac=mac))


def check_fence(found: Sequence[Row], writes: Iterable[ConversationWrite]) -> None:
    """Refuses to create a conversation under a KEK that may be retired by now.

    `found`: the row of the least KEK, read with a lock that `MysqlKeys.fence` waits for.
    Raises `KeyringBehind` (retryable): this process learns within seconds which KEK counts.
    """
    least = int(found[0][0]) if found else 0
    for write in writes:
        if write.created and kek_of(write.conversation.wrapped_key) < least:
            raise KeyringBehind(
                f"A conversation was to be created under an older key than {least}.",
                retry_after_seconds=1.0,
            )
