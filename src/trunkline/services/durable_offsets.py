"""Writes read offsets behind: coalesced to one a conversation, endpoint and interval.

Losing the newest of them in a crash costs a re-delivery, no data (DESIGN section 4).
"""

import asyncio
from collections.abc import Iterable

import structlog

from trunkline.errors import TrunklineError
from trunkline.model import ConversationKey, EndpointId, OffsetMove, UserId
from trunkline.ports.hot import HotStore

_log = structlog.get_logger("trunkline.offsets")


class DurableOffsets:
    """Collects offset moves and records them in the hot store every interval."""

    def __init__(self, hot: HotStore, *, interval_seconds: float) -> None:
        self._hot = hot
        self._interval_seconds = interval_seconds
        self._dirty: dict[tuple[ConversationKey, UserId, EndpointId], OffsetMove] = {}
        self._closing = asyncio.Event()

    def add(self, moves: Iterable[OffsetMove]) -> None:
        """Takes moves over; the newest of each conversation and endpoint counts."""
        for move in moves:
            self._dirty[move.key, move.user, move.endpoint] = move

    async def flush(self) -> None:
        """Records what was collected; on an error it stays for the next time."""
        dirty, self._dirty = self._dirty, {}
        if not dirty:
            return
        try:
            await self._hot.record((), tuple(dirty.values()))
        except TrunklineError as error:
            self._dirty = dirty | self._dirty
            _log.warning("offsets_not_recorded", code=error.code, offsets=len(dirty))

    def close(self) -> None:
        """`run` flushes once more and returns."""
        self._closing.set()

    async def run(self) -> None:
        """Flushes every interval until closed."""
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await self._closing.wait()
            except TimeoutError:
                pass
            await self.flush()
