"""Reads anew who is a member, where what arrived is newer than the list of watchers (I13).

One task a database does it, so that what was read later is applied later, and a database that
is away holds up no other's.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
import structlog

from trunkline.core.lanes import Lanes
from trunkline.core.packets import Frame
from trunkline.errors import TrunklineError
from trunkline.model import Conversation, ConversationId, ConversationKey, Member, UserId
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import portions
from trunkline.services.registry import Connection, Registry
from trunkline.services.troubles import Troubles
from trunkline.services.watching import Watching
from trunkline.wire.frames import Notice

_log = structlog.get_logger("trunkline.memberships")
_FRAMES_KEPT: Final = 1_024
"""So many frames wait for the lists of a database; what comes then is pulled after a repair."""
_ROWS_AT_ONCE: Final = 100
_QUESTIONS_AT_ONCE: Final = 8
_FEW_USERS: Final = 16
"""Of more than so many users the whole list is read: one question instead of one each."""
_RETRY_SECONDS: Final = (0.2, 5.0)


class _Reload(msgspec.Struct):
    """A list that is to be read anew; `tell_all`: whatever it says, all of them are to sync."""

    frames: list[Frame] = []
    tell_all: bool = False


class _Settle(msgspec.Struct):
    """Users of whom it is to be found out whether they are members."""

    conversation: ConversationId
    users: dict[UserId, None]


class _Lane:
    """What is to be read of one database.

    Attributes:
        kept: frames among it.
    """

    def __init__(self) -> None:
        self.reloads: dict[ConversationKey, _Reload] = {}
        self.settles: dict[ConversationKey, _Settle] = {}
        self.kept = 0
        self.wake = asyncio.Event()


class Memberships:
    """Keeps the registry's lists of watchers true to the hot store.

    Attributes:
        show: writes a frame that waited for its list.
    """

    def __init__(
        self,
        hot: HotStore,
        heads: Heads,
        registry: Registry,
        watching: Watching,
        metrics: Metrics,
        lanes: Lanes,
    ) -> None:
        self._hot = hot
        self._heads = heads
        self._registry = registry
        self._watching = watching
        self._metrics = metrics
        self._names = lanes.names
        self._lane_of = lanes.of_key
        self._lanes = [_Lane() for _ in lanes.names]
        self._troubles = Troubles(_log, "members_not_read")
        self.show: Callable[[Frame], object] = _nowhere

    def reload(
        self, key: ConversationKey, frame: Frame | None = None, *, tell_all: bool = False
    ) -> None:
        """Reads the whole list anew, then writes `frame` to whom it may be written."""
        lane = self._lanes[self._lane_of(key)]
        reload = lane.reloads.setdefault(key, _Reload())
        reload.tell_all |= tell_all
        if frame is not None and lane.kept < _FRAMES_KEPT:
            reload.frames.append(frame)
            lane.kept += 1
        lane.wake.set()

    def settle(
        self, key: ConversationKey, conversation: ConversationId, users: Iterable[UserId]
    ) -> None:
        """Finds out of each user who is online here whether they are a member, and tells them."""
        online = [user for user in users if self._registry.of_user(user)]
        if not online:
            return
        lane = self._lanes[self._lane_of(key)]
        settle = lane.settles.setdefault(key, _Settle(conversation, {}))
        settle.users.update(dict.fromkeys(online))
        lane.wake.set()

    async def run(self) -> None:
        """Reads until cancelled; what failed is tried again."""
        async with asyncio.TaskGroup() as group:
            for name, lane in zip(self._names, self._lanes, strict=True):
                group.create_task(self._run_lane(name, lane))

    async def _run_lane(self, name: str, lane: _Lane) -> None:
        pause = _RETRY_SECONDS[0]
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            reloads, lane.reloads = lane.reloads, {}
            settles, lane.settles = lane.settles, {}
            lane.kept = 0
            try:
                await self._settle_all(settles)
                await self._reload_all(reloads)
            except TrunklineError as error:
                self._troubles.failed(name, error, conversations=len(reloads))
                self._again(reloads, settles)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_SECONDS[1])
            else:
                self._troubles.passed(name)
                pause = _RETRY_SECONDS[0]

    def _again(
        self,
        reloads: Iterable[ConversationKey],
        settles: Mapping[ConversationKey, _Settle],
    ) -> None:
        for key in reloads:
            self.reload(key, tell_all=True)
        for key, settle in settles.items():
            self.settle(key, settle.conversation, settle.users)

    async def _reload_all(self, reloads: Mapping[ConversationKey, _Reload]) -> None:
        for keys in portions(list(reloads), _ROWS_AT_ONCE):
            told: dict[Connection, dict[ConversationId, None]] = {}
            # The row first: a list that is newer than its version lets in nobody who is gone.
            for row in await self._heads.rows(keys):
                self._metrics.reloads.inc()
                members = await self._hot.members(row.key)
                for connection in self._registry.let_in(row, members):
                    told.setdefault(connection, {})[row.id] = None
                if reloads[row.key].tell_all:
                    for connection in self._registry.watchers(row.key):
                        told.setdefault(connection, {})[row.id] = None
            await self._watching.watch(
                [key for key in keys if self._registry.watched(key) is not None]
            )
            _tell(told)
            for key in keys:
                for frame in reloads[key].frames:
                    self._show(frame)

    def _show(self, frame: Frame) -> None:
        watchers = self._registry.watched(frame.key)
        if watchers is None or frame.audience <= watchers.version:
            self.show(frame)

    async def _settle_all(self, settles: Mapping[ConversationKey, _Settle]) -> None:
        asked: dict[UserId, dict[ConversationId, ConversationKey]] = {}
        for key, settle in settles.items():
            if len(settle.users) > _FEW_USERS:
                self.reload(key)
                continue
            for user in settle.users:
                asked.setdefault(user, {})[settle.conversation] = key
        watched: dict[ConversationKey, None] = {}
        for users in portions(list(asked), _QUESTIONS_AT_ONCE):
            found = await asyncio.gather(*(self._hot.views(user, asked[user]) for user in users))
            for user, rows in zip(users, found, strict=True):
                for row, member in rows.values():
                    self._settle(user, row, member)
                    if not member.left_at:
                        watched[row.key] = None
        await self._watching.watch(list(watched))
        for user, conversations in asked.items():
            _tell(dict.fromkeys(self._registry.of_user(user), conversations))

    def _settle(self, user: UserId, row: Conversation, member: Member) -> None:
        for connection in self._registry.of_user(user):
            if member.left_at:
                self._registry.unwatch(connection, row.key, member.left_at)
            else:
                self._registry.watch(connection, row, member.visible_from)


def _tell(told: Mapping[Connection, Iterable[ConversationId]]) -> None:
    for connection, conversations in told.items():
        if connection.push:
            for conversation in conversations:
                connection.write(Notice(conversation))


def _nowhere(frame: Frame) -> None:
    """Nobody is shown anything yet."""
