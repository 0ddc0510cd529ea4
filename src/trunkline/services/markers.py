"""Read markers: durable before the answer, many of them in one record (DESIGN section 4)."""

import asyncio
from collections.abc import Iterable

from trunkline.core.lanes import Lanes
from trunkline.core.views import check_position
from trunkline.errors import OutcomeUnknown, Overloaded
from trunkline.model import ConversationKey, MarkerMove, UserId
from trunkline.ports.hot import HotStore
from trunkline.services.access import Views
from trunkline.services.crossing import Crossing
from trunkline.services.reader import Reader
from trunkline.services.registry import Connection, Registry
from trunkline.wire.frames import Mark, Notice


class _Lane:
    """What waits for one database."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[ConversationKey, UserId], MarkerMove] = {}
        self.recorded: asyncio.Future[None] | None = None
        self.recording = asyncio.Lock()


class Markers:
    """Serves `mark` frames. What arrives while a record is under way is combined, a database."""

    def __init__(
        self,
        hot: HotStore,
        views: Views,
        reader: Reader,
        registry: Registry,
        *,
        queue: int,
        lanes: Lanes,
        crossing: Crossing | None = None,
    ) -> None:
        """`queue`: most moves that wait for one database."""
        self._hot = hot
        self._views = views
        self._reader = reader
        self._registry = registry
        self._queue = queue
        self._crossing = crossing
        self._lane_of = lanes.of_key
        self._lanes = [_Lane() for _ in range(lanes.count)]
        self._unknown: dict[tuple[ConversationKey, UserId], None] = {}

    async def mark(self, connection: Connection, frame: Mark) -> None:
        """Moves the marker forward; raises `NotMember`, `AheadOfHead` (I9).

        Durable when it returns. The user's other connections are told to sync.
        """
        access = await self._views.of(connection.user, frame.conversation)
        check_position(access.view, frame.seq)
        key = (access.conversation.key, connection.user)
        if frame.seq > access.view.marker:
            countable = await self._reader.countable_at(access.conversation, frame.seq)
            await self._record(MarkerMove(*key, frame.seq, countable))
        elif self._crossing is None and key not in self._unknown:
            return  # among several workers another one may have left it unknown
        self._unknown.pop(key, None)
        for other in self._registry.of_user(connection.user):
            if other is not connection and other.push:
                other.write(Notice(frame.conversation))
        if self._crossing is not None:
            self._crossing.marked(connection.user, access.conversation)

    def _remember_unknown(self, moves: Iterable[tuple[ConversationKey, UserId]]) -> None:
        """These may be stored, and nobody was told: the client's next try tells them."""
        if len(self._unknown) >= self._queue:
            self._unknown.clear()
        self._unknown.update(dict.fromkeys(moves))

    async def _record(self, move: MarkerMove) -> None:
        lane = self._lanes[self._lane_of(move.key)]
        key = (move.key, move.user)
        waiting = lane.waiting.get(key)
        if waiting is None and len(lane.waiting) >= self._queue:
            raise Overloaded(retry_after_seconds=0.5)
        if waiting is None or waiting.seq < move.seq:
            lane.waiting[key] = move
        if lane.recorded is None:
            lane.recorded = asyncio.get_running_loop().create_future()
        mine = lane.recorded
        async with lane.recording:
            if mine.done():
                mine.result()
                return
            moves, lane.waiting, lane.recorded = lane.waiting, {}, None
            try:
                await self._hot.record(tuple(moves.values()), ())
            except OutcomeUnknown:
                self._remember_unknown(moves)
                mine.set_exception(OutcomeUnknown())
                mine.exception()
                raise
            except BaseException as error:
                mine.set_exception(error if isinstance(error, Exception) else Overloaded())
                mine.exception()
                raise
            mine.set_result(None)
