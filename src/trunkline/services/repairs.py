"""Finds what a lost push left behind, and tells those who watch; never polls what is whole.

After a gap everything is registered again and compared with the hot store; besides, a sweep
compares everything once in a while. What could not be published is told once the tier answers.
What stands in one database waits for no other: each has a task of its own.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import structlog

from trunkline.core.appending import ConversationWrite
from trunkline.core.lanes import Lanes
from trunkline.core.packets import Told
from trunkline.errors import StorageUnavailable, TierUnavailable, TrunklineError
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Member,
    Seq,
    UserConversation,
    UserId,
    WorkerId,
)
from trunkline.ports.cached import CachedTier
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.services.memberships import Memberships
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import portions
from trunkline.services.publishing import Publisher
from trunkline.services.registry import Registry
from trunkline.services.troubles import Troubles
from trunkline.services.watching import Watching
from trunkline.wire.frames import Notice

_log = structlog.get_logger("trunkline.repairs")

_TICK_SECONDS: Final = 1.0
_UNDER_WAY_SECONDS: Final = 0.3
"""A head that is ahead for longer is not one whose push is just under way."""
_KEYS_AT_ONCE: Final = 500
_USERS_AT_ONCE: Final = 100
_UNPUBLISHED_MOST: Final = 10_000
_LISTS_MOST: Final = 10_000
"""Of so many users changed conversations wait for a database; of others the sweep sees to it."""
_RETRY_SECONDS: Final = 2.0
_REST_SECONDS: Final = 1.0
"""After everything was compared: gaps that come meanwhile make one more round, not many."""


class _Lane:
    """What is to be looked at in one database.

    Attributes:
        keys: conversations whose head is to be compared.
        users: those whose list stands there and is to be compared.
        changed: conversations that stand there, by users in whose lists they changed.
        unpublished: conversations whose head the other workers are still to be told.
        rests: whether everything is among it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: dict[ConversationKey, None] = {}
        self.users: dict[UserId, None] = {}
        self.changed: dict[UserId, dict[ConversationId, None]] = {}
        self.unpublished: dict[ConversationKey, None] = {}
        self.too_many_unpublished = False
        self.rests = False
        self.wake = asyncio.Event()


class Repairs:
    """Compares what the connections here know with what is committed.

    Attributes:
        heard_of: the workers from which anything came.
    """

    def __init__(
        self,
        hot: HotStore,
        heads: Heads,
        cached: CachedTier,
        registry: Registry,
        watching: Watching,
        memberships: Memberships,
        publisher: Publisher,
        metrics: Metrics,
        lanes: Lanes,
        *,
        sweep_seconds: float,
    ) -> None:
        self._hot = hot
        self._heads = heads
        self._cached = cached
        self._registry = registry
        self._watching = watching
        self._memberships = memberships
        self._publisher = publisher
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._lane_of, self._lane_of_key = lanes.of, lanes.of_key
        self._lanes = [_Lane(name) for name in lanes.names]
        self._troubles = Troubles(_log, "repair_failed")
        self._renew = self._everything = False
        self._swept: list[ConversationKey] = []
        self._swept_users: list[UserId] = []
        self._sweep_ticks = 0
        self._wake = asyncio.Event()
        self.heard_of: Callable[[], Sequence[WorkerId]] = tuple
        publisher.lost = self.unpublished
        publisher.lost_notes = self._everybody_compares

    # --- what happened ----------------------------------------------------------------------

    def missed(self, *, registrations: bool = True) -> None:
        """Packets were lost; with `registrations` maybe also what the tier knew of this worker."""
        self._renew |= registrations
        self._everything = True
        self._wake.set()

    def forgotten(self, keys: Iterable[ConversationKey], users: Iterable[UserId]) -> None:
        """What was published of these may have come to nobody here."""
        self._look_at(keys, users)

    def told(self, told: Told) -> None:
        """The head is there: those who watch here and were not pushed it are told to sync."""
        watchers = self._registry.watched(told.key)
        if watchers is None:
            return
        if told.version > watchers.version:
            self._memberships.reload(told.key)
        if told.head > watchers.reached:
            self._tell(told.key, told.head)

    def unpublished(self, keys: Iterable[ConversationKey]) -> None:
        """What was committed there may not have reached the workers that watch."""
        for key in keys:
            lane = self._lanes[self._lane_of_key(key)]
            if len(lane.unpublished) < _UNPUBLISHED_MOST:
                lane.unpublished[key] = None
            elif key not in lane.unpublished:
                lane.too_many_unpublished = True
            lane.wake.set()
        self._count_unpublished()

    def _everybody_compares(self) -> None:
        """Of more was dropped than can be told one by one."""
        lane = self._lanes[0]
        lane.too_many_unpublished = True
        lane.wake.set()

    def look_at_list(self, user: UserId) -> None:
        """The user's list could not be read: it is compared once it can be."""
        self._look_at((), (user,))

    def look_at_lines(self, user: UserId, lines: Iterable[UserConversation]) -> bool:
        """These conversations of a user are looked at once their databases answer.

        Returns False if too many wait there: then some are not.
        """
        took_all = True
        for line in lines:
            lane = self._lanes[self._lane_of_key(line.key)]
            if user in lane.changed or len(lane.changed) < _LISTS_MOST:
                lane.changed.setdefault(user, {})[line.conversation] = None
                lane.wake.set()
            else:
                took_all = False
        return took_all

    # --- what is done about it --------------------------------------------------------------

    async def run(self) -> None:
        """Repairs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_rounds())
            for lane in self._lanes:
                group.create_task(self._run_lane(lane))

    async def _run_rounds(self) -> None:
        """Says what is to be compared: everything after a gap, else a share of it each tick."""
        while True:
            sweeps = False
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                sweeps = True
            self._wake.clear()
            try:
                if sweeps:
                    await self._sweep()
                if self._everything:
                    await self._take_everything()
                    await asyncio.sleep(_REST_SECONDS)
            except TrunklineError as error:
                self._troubles.failed("registrations", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()
            else:
                self._troubles.passed("registrations")

    async def _take_everything(self) -> None:
        renew, self._renew, self._everything = self._renew, False, False
        if renew:
            try:
                await self._watching.renew()
            except TrunklineError:
                self._renew = self._everything = True
                raise
        for lane in self._lanes:
            lane.rests = True
        self._look_at(self._registry.keys(), self._watching.served())

    def _look_at(self, keys: Iterable[ConversationKey], users: Iterable[UserId]) -> None:
        for key in keys:
            self._lanes[self._lane_of_key(key)].keys[key] = None
        for user in users:
            self._lanes[self._lane_of(user)].users[user] = None
        for lane in self._lanes:
            if lane.keys or lane.users:
                lane.wake.set()

    async def _run_lane(self, lane: _Lane) -> None:
        parts = (self._compare, self._tell_others, self._compare_changed, self._compare_lists)
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            rests, lane.rests = lane.rests, False
            failure: TrunklineError | None = None
            for part in parts:  # what one needs may be there though another's is not
                try:
                    await part(lane)
                except TrunklineError as error:
                    failure = failure or error
            if failure is None:
                self._troubles.passed(lane.name)
            else:
                self._troubles.failed(lane.name, failure)
                lane.wake.set()
                await asyncio.sleep(_RETRY_SECONDS)
            if rests:
                await asyncio.sleep(_REST_SECONDS)

    async def _sweep(self) -> None:
        """Takes the next share of everything that is watched, to be registered again and
        compared. A round takes half the time, since what came after its start waits for the next.
        """
        self._sweep_ticks -= 1
        if self._sweep_ticks < 0:
            self._sweep_ticks = max(1, int(self._sweep_seconds / 2 / _TICK_SECONDS))
            self._swept, self._swept_users = self._registry.keys(), self._watching.served()
        rest = self._sweep_ticks + 1
        keys = [self._swept.pop() for _ in range(len(self._swept) // rest)]
        users = [self._swept_users.pop() for _ in range(len(self._swept_users) // rest)]
        await self._watching.renew_some(keys, users)
        self._look_at(keys, users)

    async def _compare(self, lane: _Lane) -> None:
        keys, lane.keys = lane.keys, {}
        try:
            await self._compare_heads(list(keys))
        except TrunklineError:
            lane.keys |= keys
            raise

    async def _compare_heads(self, keys: Sequence[ConversationKey]) -> None:
        ahead: list[Conversation] = []
        for portion in portions(keys, _KEYS_AT_ONCE):
            ahead += filter(self._is_ahead, await self._heads.rows(portion))
        if not ahead:
            return
        await asyncio.sleep(_UNDER_WAY_SECONDS)
        ahead = list(filter(self._is_ahead, ahead))
        # Who is told syncs by the cached heads; the writer may not have raised them yet, or it
        # died before it could.
        try:
            await self._cached.append([ConversationWrite.of_head(row) for row in ahead])
        except TierUnavailable as error:
            _log.warning("heads_not_raised", code=error.code, conversations=len(ahead))
            self.unpublished(row.key for row in ahead)  # told once the tier has them
            return
        for row in filter(self._is_ahead, ahead):
            self.told(Told.of(row))

    def _is_ahead(self, row: Conversation) -> bool:
        watchers = self._registry.watched(row.key)
        return watchers is not None and (
            row.head > watchers.reached or row.membership_version > watchers.version
        )

    def _tell(self, key: ConversationKey, head: Seq) -> None:
        watchers = self._registry.watched(key)
        if watchers is None:
            return
        self._metrics.repairs.inc()
        watchers.reached = max(watchers.reached, head)
        for connection in watchers:
            connection.write(Notice(watchers.conversation))

    async def _compare_lists(self, lane: _Lane) -> None:
        for user in list(islice(lane.users, _USERS_AT_ONCE)):
            await self._compare_list(user)
            lane.users.pop(user, None)
        if lane.users:
            lane.wake.set()

    async def _compare_list(self, user: UserId) -> None:
        """What became the user's, or changed otherwise, without a note that arrived."""
        before = self._watching.list_versions.get(user)
        if before is None:
            return
        lines = await self._hot.conversations_of(user, changed_after=before)
        if not lines or not self._registry.of_user(user):
            return
        if self.look_at_lines(user, lines) and user in self._watching.list_versions:
            self._watching.list_versions[user] = max(line.version for line in lines)

    async def _compare_changed(self, lane: _Lane) -> None:
        """Looks at the conversations that changed in users' lists."""
        for user in list(lane.changed):
            conversations = lane.changed.pop(user)
            try:
                rows = await self._hot.views(user, list(conversations))
            except TrunklineError:
                lane.changed[user] = conversations | lane.changed.get(user, {})
                raise
            for row, member in rows.values():
                self._tell_changed(user, row, member)

    def _tell_changed(self, user: UserId, row: Conversation, member: Member) -> None:
        connections = [c for c in self._registry.of_user(user) if c.push]
        watching = [row.key in connection.watched for connection in connections]
        if any(watching) if member.left_at else not all(watching):
            self._memberships.settle(row.key, row.id, (user,))
        else:
            for connection in connections:
                connection.write(Notice(row.id))

    async def _tell_others(self, lane: _Lane) -> None:
        """Tells the other workers what was not published, once the tier answers."""
        failure: StorageUnavailable | None = None
        try:
            await self._tell_heads(lane)
        except TierUnavailable:
            raise
        except StorageUnavailable as error:
            failure = error  # the rest needs no database
        if lane.too_many_unpublished:
            lane.too_many_unpublished = False
            self._publisher.tell_everything(self.heard_of())
        if failure is not None:
            raise failure

    async def _tell_heads(self, lane: _Lane) -> None:
        """Asks the tier who watches what was not published, and tells them the heads."""
        for keys in portions(list(lane.unpublished), _KEYS_AT_ONCE):
            rows = {row.key: row for row in await self._heads.rows(keys)}
            writes = [ConversationWrite.of_head(row) for row in rows.values()]
            others = await self._cached.append(writes)
            for key in keys:
                lane.unpublished.pop(key, None)
                row = rows.get(key)
                if row is not None:
                    told = Told.of(row)
                    self.told(told)
                    self._publisher.tell(told, others.get(key, ()))
            self._count_unpublished()

    def _count_unpublished(self) -> None:
        self._metrics.unpublished.set(sum(len(lane.unpublished) for lane in self._lanes))
