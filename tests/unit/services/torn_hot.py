"""A hot store in two databases, either of which may refuse or keep silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Literal

from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.ids import SHARDS, shard_hash
from trunkline.core.lanes import Lanes
from trunkline.errors import StorageUnavailable
from trunkline.model import ConversationId, UserId

TWO: Final = Lanes(("db1", "db2"), [shard // (SHARDS // 2) for shard in range(SHARDS)])
SILENT_SECONDS: Final = 15.0
Trouble = Literal["dead", "silent"]


def conversation_on(lane: int, word: str = "group") -> ConversationId:
    """An id of a conversation that one of the two holds."""
    return ConversationId(_on(lane, word))


def user_on(lane: int, word: str) -> UserId:
    """A user whose list one of the two holds."""
    return UserId(_on(lane, word))


def _on(lane: int, word: str) -> str:
    names = (f"{word}{number}" for number in range(1_000))
    return next(n for n in names if shard_hash(ConversationId(n)) // (SHARDS // 2) == lane)


class TornHot:
    """Answers from a memory store what no database that is away would have to be asked for.

    Attributes:
        away: the databases' troubles, by lane.
        fails: what one that is away does not do: to read, to write, or both.
    """

    def __init__(self, inner: MemoryHotStore) -> None:
        self.away: dict[int, Trouble] = {}
        self.fails = frozenset({"read", "write"})
        self._inner: Any = inner

    async def append(self, batch: Any, decide: Any, *, wait: bool = True) -> Any:
        await self._write(TWO.of(draft.conversation) for draft in batch)
        return await self._inner.append(batch, decide, wait=wait)

    async def record(self, markers: Any, offsets: Any) -> None:
        await self._write([TWO.of_key(m.key) for m in markers] + [TWO.of(m.user) for m in offsets])
        await self._inner.record(markers, offsets)

    async def views(self, user: Any, ids: Any) -> Any:
        await self._ask(map(TWO.of, ids))
        return await self._inner.views(user, ids)

    async def members(self, key: Any) -> Any:
        await self._ask([TWO.of_key(key)])
        return await self._inner.members(key)

    async def rows(self, keys: Any) -> Any:
        await self._ask(map(TWO.of_key, keys))
        return await self._inner.rows(keys)

    async def conversations_of(self, user: Any, *, changed_after: int = 0) -> Any:
        await self._ask([TWO.of(user)])
        return await self._inner.conversations_of(user, changed_after=changed_after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _write(self, lanes: Iterable[int]) -> None:
        if "write" in self.fails:
            await self._answer(lanes)

    async def _ask(self, lanes: Iterable[int]) -> None:
        if "read" in self.fails:
            await self._answer(lanes)

    async def _answer(self, lanes: Iterable[int]) -> None:
        troubles = {self.away.get(lane) for lane in lanes}
        if "silent" in troubles:
            await asyncio.sleep(SILENT_SECONDS)
        if troubles - {None}:
            raise StorageUnavailable
