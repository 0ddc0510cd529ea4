"""Writes read offsets behind: coalesced to one a conversation, endpoint and interval.

Losing the newest of them in a crash costs a re-delivery, no data (DESIGN section 4).
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from trunkline.core.lanes import Lanes
from trunkline.errors import TrunklineError
from trunkline.model import ConversationKey, EndpointId, OffsetMove, UserId
from trunkline.ports.hot import HotStore
from trunkline.services.troubles import Troubles

_log = structlog.get_logger("trunkline.offsets")
_LAST_SECONDS: Final = 5.0
"""A worker that ends waits no longer for a database that does not answer."""
_Moves = dict[tuple[ConversationKey, UserId, EndpointId], OffsetMove]


class DurableOffsets:
    """Collects offset moves and records them in the hot store every interval, each database's
    by themselves.
    """

    def __init__(self, hot: HotStore, lanes: Lanes, *, interval_seconds: float) -> None:
        self._hot = hot
        self._lanes = lanes
        self._interval_seconds = interval_seconds
        self._dirty: list[_Moves] = [{} for _ in lanes.names]
        self._troubles = Troubles(_log, "offsets_not_recorded")
        self._closing = asyncio.Event()

    def add(self, moves: Iterable[OffsetMove]) -> None:
        """Takes moves over; the newest of each conversation and endpoint counts."""
        for move in moves:
            dirty = self._dirty[self._lanes.of(move.user)]
            dirty[move.key, move.user, move.endpoint] = move

    async def flush(self, lane: int) -> None:
        """Records what was collected for a database; on an error it stays for the next time."""
        dirty, self._dirty[lane] = self._dirty[lane], {}
        if not dirty:
            return
        name = self._lanes.names[lane]
        try:
            await self._hot.record((), tuple(dirty.values()))
        except TrunklineError as error:
            self._dirty[lane] = dirty | self._dirty[lane]
            self._troubles.failed(name, error, offsets=len(dirty))
        else:
            self._troubles.passed(name)

    def close(self) -> None:
        """`run` flushes once more and returns."""
        self._closing.set()

    async def run(self) -> None:
        """Flushes every interval until closed."""
        async with asyncio.TaskGroup() as group:
            for lane in range(self._lanes.count):
                group.create_task(self._run_lane(lane))

    async def _run_lane(self, lane: int) -> None:
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await self._closing.wait()
            except TimeoutError:
                await self.flush(lane)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.flush(lane)
        except TimeoutError:
            _log.warning("offsets_given_up", place=self._lanes.names[lane])
