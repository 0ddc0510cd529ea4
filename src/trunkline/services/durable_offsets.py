"""Writes read offsets behind: coalesced to one a conversation, endpoint and interval.

Losing the newest of them in a crash costs a re-delivery, no data (DESIGN section 4).
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final

import structlog

from trunkline.core.lanes import Lanes
from trunkline.errors import ShardMoved, TrunklineError
from trunkline.model import ConversationKey, EndpointId, OffsetMove, UserId
from trunkline.ports.hot import HotStore
from trunkline.services.metrics import Metrics
from trunkline.services.troubles import Troubles

_log = structlog.get_logger("trunkline.offsets")
_LAST_SECONDS: Final = 5.0
"""A worker that ends waits no longer for a database that does not answer."""
_RECORDED_AT_ONCE: Final = 5_000
_Moves = dict[tuple[ConversationKey, UserId, EndpointId], OffsetMove]


class DurableOffsets:
    """Collects offset moves and records them in the hot store every interval, each database's
    by themselves.

    What waits is bounded: past the bound, moves are dropped and counted.
    """

    def __init__(
        self, hot: HotStore, lanes: Lanes, metrics: Metrics, *, interval_seconds: float, most: int
    ) -> None:
        """`most`: moves that may wait for one database."""
        self._hot = hot
        self._lanes = lanes
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._most = most
        self._dirty: list[_Moves] = [{} for _ in lanes.names]
        self._troubles = Troubles(_log, "offsets_not_recorded")
        self._closing = asyncio.Event()

    def add(self, moves: Iterable[OffsetMove]) -> None:
        """Takes moves over; the newest of each conversation and endpoint counts."""
        for move in moves:
            dirty = self._dirty[self._lanes.of(move.user)]
            key = (move.key, move.user, move.endpoint)
            if key in dirty or len(dirty) < self._most:
                dirty[key] = move
            else:
                self._metrics.offsets_dropped.inc()

    async def flush(self, lane: int) -> None:
        """Records what was collected for a database, in portions. What it does not take now
        stays for the next time; what it will not take at all is dropped.
        """
        dirty = self._dirty[lane]
        for _ in range(0, len(dirty), _RECORDED_AT_ONCE):
            part = dict(islice(dirty.items(), _RECORDED_AT_ONCE))
            if not await self._is_done_with(self._lanes.names[lane], part):
                return
            for key, move in part.items():
                if dirty[key] is move:  # it may have moved on meanwhile
                    del dirty[key]

    async def _is_done_with(self, name: str, part: _Moves) -> bool:
        """Whether a portion is recorded, or never will be.

        Of one of which some stand in a shard that was taken over, the rest is recorded. This
        writer may have the shard again at once; if not, who confirms goes on at another worker.
        """
        moves = tuple(part.values())
        try:
            try:
                await self._hot.record((), moves)
            except ShardMoved:
                await self._hot.record((), moves)
        except TrunklineError as error:
            self._troubles.failed(name, error, offsets=len(moves))
            if error.retryable and not isinstance(error, ShardMoved):
                return False
            self._metrics.offsets_dropped.inc(len(moves))
        else:
            self._troubles.passed(name)
        return True

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
