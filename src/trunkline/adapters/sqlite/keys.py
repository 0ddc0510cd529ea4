"""Wrapped keys in a data directory's rows: counted, replaced, destroyed, by commits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, TypeVar

import msgspec

from trunkline.adapters.sqlite.hot import SqliteHotStore
from trunkline.adapters.sqlite.records import Record, Written
from trunkline.adapters.sqlite.tables import Tables
from trunkline.core.envelope import kek_of
from trunkline.core.rows import conversation_row
from trunkline.model import Conversation, ConversationId, ConversationKey

T = TypeVar("T")
_RUN: Final = 256


class SqliteKeys:
    """A `ports.keys.WrappedKeys`. What it asks of the tables is asked once all is in them."""

    def __init__(
        self,
        hot: SqliteHotStore,
        tables: Tables,
        thread: Executor,
        materialise: Callable[[], Awaitable[None]],
    ) -> None:
        self._hot = hot
        self._tables = tables
        self._thread = thread
        self._materialise = materialise

    async def counts(self) -> Mapping[str, Mapping[int, int]]:
        """Conversations by KEK, under the name of the tables' file."""
        await self._materialise()
        counted: dict[int, int] = {}
        for header, count in await self._ask(self._tables.wrapped_headers):
            kek_id = kek_of(header)
            counted[kek_id] = counted.get(kek_id, 0) + count
        return {self._tables.file: counted}

    async def wrapped_otherwise(self, kek_id: int) -> AsyncIterator[Sequence[Conversation]]:
        """Rows that another KEK wraps, in key order."""
        await self._materialise()
        after: ConversationKey | None = None
        while True:
            rows = await self._ask(self._tables.wrapped_otherwise, kek_id, after, _RUN)
            if rows:
                yield rows
            if len(rows) < _RUN:
                return
            after = rows[-1].key

    async def rewrap(self, changes: Sequence[tuple[Conversation, bytes]]) -> Sequence[Conversation]:
        """Replaces wrapped keys that still are the ones given, in one commit."""
        slots = await self._hot.turn_with([row.key for row, _ in changes])
        records: list[Record] = []
        for row, wrapped in changes:
            slot = slots.get(row.key)
            if slot is not None and slot.conversation.wrapped_key == row.wrapped_key:
                new = msgspec.structs.replace(slot.conversation, wrapped_key=wrapped)
                records.append(_written(new))
        await self._hot.commit(records)
        return await self._hot.rows([row.key for row, _ in changes])

    async def find(self, conversation: ConversationId) -> Conversation | None:
        """The conversation's row."""
        await self._materialise()
        return await self._ask(self._tables.conversation_by_id, conversation)

    async def shred(self, conversation: Conversation) -> None:
        """Empties the wrapped key and raises the lists' versions, in one commit."""
        members = await self._hot.members(conversation.key)
        slots = await self._hot.turn_with([conversation.key])
        slot = slots.get(conversation.key)
        if slot is None:
            self._hot.give_turn_back()
            return
        row = msgspec.structs.replace(slot.conversation, wrapped_key=b"", sealed_name=b"")
        await self._hot.commit_row(row, members.values())

    async def _ask(self, question: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, question, *arguments)


def _written(row: Conversation) -> Written:
    return Written(row.key, row.id, (), conversation_row(row), ())
