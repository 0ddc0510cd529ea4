"""Wrapped keys in a data directory's rows: counted, replaced, destroyed, by commits."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.adapters.sqlite.hot import SqliteHotStore
from trunkline.adapters.sqlite.overlay import Overlay
from trunkline.adapters.sqlite.records import Record, Written
from trunkline.adapters.sqlite.tables import Tables
from trunkline.core.envelope import kek_of
from trunkline.core.member_macs import MemberMacs
from trunkline.core.rows import conversation_row
from trunkline.model import Conversation, ConversationId, ConversationKey

_RUN: Final = 256


class SqliteKeys:
    """A `ports.keys.WrappedKeys`. What it asks of the tables is asked once all is in them."""

    def __init__(self, hot: SqliteHotStore, overlay: Overlay) -> None:
        self._hot = hot
        self._overlay = overlay

    async def counts(self) -> Mapping[str, Mapping[int, int]]:
        """Conversations by KEK, under the name of the tables' file."""
        counted: dict[int, int] = {}
        for header, count in await self._overlay.read_moved(Tables.wrapped_headers):
            kek_id = kek_of(header)
            counted[kek_id] = counted.get(kek_id, 0) + count
        return {self._overlay.file: counted}

    async def wrapped_otherwise(self, kek_id: int) -> AsyncIterator[Sequence[Conversation]]:
        """Rows that another KEK wraps, in key order."""
        after: ConversationKey | None = None
        while True:
            rows = await self._overlay.read_moved(Tables.wrapped_otherwise, kek_id, after, _RUN)
            if rows:
                yield rows
            if len(rows) < _RUN:
                return
            after = rows[-1].key

    async def rewrap(
        self, changes: Sequence[tuple[Conversation, bytes]], macs: MemberMacs | None = None
    ) -> Sequence[Conversation]:
        """Replaces wrapped keys that still are the ones given, in one commit; MACs before it."""
        if macs is not None:
            for row, _ in changes:
                await self._authenticate(row.key, macs)
        slots = await self._hot.turn_with([row.key for row, _ in changes])
        records: list[Record] = []
        for row, wrapped in changes:
            slot = slots.get(row.key)
            if slot is not None and slot.conversation.wrapped_key == row.wrapped_key:
                new = msgspec.structs.replace(slot.conversation, wrapped_key=wrapped)
                records.append(_written(new))
        await self._hot.commit(records)
        return await self._hot.rows([row.key for row, _ in changes])

    async def _authenticate(self, key: ConversationKey, macs: MemberMacs) -> None:
        members = await self._hot.members(key)
        slot = (await self._hot.turn_with([key])).get(key)
        if slot is None:
            self._hot.give_turn_back()
            return
        sealed = [macs.seal(key, member) for member in members.values()]
        await self._hot.commit_row(slot.conversation, sealed)

    async def find(self, conversation: ConversationId) -> Conversation | None:
        """The conversation's row."""
        return await self._overlay.read_moved(Tables.conversation_by_id, conversation)

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


def _written(row: Conversation) -> Written:
    return Written(row.key, row.id, (), conversation_row(row), ())
