"""Finds what a lost push left behind, and tells those who watch; never polls what is whole.

After a gap everything is registered again and compared with the hot store; besides, a sweep
compares everything once in a while. What could not be published is told once the tier answers.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import structlog

from trunkline.core.appending import ConversationWrite
from trunkline.core.packets import Told
from trunkline.errors import TierUnavailable, TrunklineError
from trunkline.model import Conversation, ConversationKey, Seq, UserId, WorkerId
from trunkline.ports.cached import CachedTier
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.services.memberships import Memberships
from trunkline.services.metrics import Metrics
from trunkline.services.publishing import Publisher
from trunkline.services.registry import Registry
from trunkline.services.watching import Watching, portions
from trunkline.wire.frames import Notice

_log = structlog.get_logger("trunkline.repairs")

_TICK_SECONDS: Final = 1.0
_UNDER_WAY_SECONDS: Final = 0.3
"""A head that is ahead for longer is not one whose push is just under way."""
_KEYS_AT_ONCE: Final = 500
_USERS_AT_ONCE: Final = 100
_UNPUBLISHED_MOST: Final = 10_000
_RETRY_SECONDS: Final = 2.0
_REST_SECONDS: Final = 1.0
"""After everything was compared: gaps that come meanwhile make one more round, not many."""


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
        self._keys: dict[ConversationKey, None] = {}
        self._users: dict[UserId, None] = {}
        self._unpublished: dict[ConversationKey, None] = {}
        self._too_many_unpublished = False
        self._renew = self._everything = False
        self._swept: list[ConversationKey] = []
        self._swept_users: list[UserId] = []
        self._sweep_ticks = 0
        self._wake = asyncio.Event()
        self.heard_of: Callable[[], Sequence[WorkerId]] = tuple
        publisher.lost = self.unpublished

    # --- what happened ----------------------------------------------------------------------

    def missed(self, *, registrations: bool = True) -> None:
        """Packets were lost; with `registrations` maybe also what the tier knew of this worker."""
        self._renew |= registrations
        self._everything = True
        self._wake.set()

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
            if len(self._unpublished) < _UNPUBLISHED_MOST:
                self._unpublished[key] = None
            elif key not in self._unpublished:
                self._too_many_unpublished = True
        self._metrics.unpublished.set(len(self._unpublished))
        self._wake.set()

    # --- what is done about it --------------------------------------------------------------

    async def run(self) -> None:
        """Repairs until cancelled."""
        while True:
            sweeps = False
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                sweeps = True
            self._wake.clear()
            rests = self._everything
            try:
                if sweeps:
                    await self._sweep()
                await self._repair()
                if rests:
                    await asyncio.sleep(_REST_SECONDS)
            except TrunklineError as error:
                _log.warning("repair_failed", code=error.code, detail=error.detail)
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _repair(self) -> None:
        if self._everything:
            renew, self._renew, self._everything = self._renew, False, False
            if renew:
                await self._watching.renew()
            self._keys.update(dict.fromkeys(self._registry.keys()))
            self._users.update(dict.fromkeys(self._watching.served()))
        keys, self._keys = self._keys, {}
        try:
            await self._compare(list(keys))
        except BaseException:
            self._keys |= keys
            raise
        if self._unpublished or self._too_many_unpublished:
            await self._tell_others()
        for user in list(islice(self._users, _USERS_AT_ONCE)):
            await self._compare_list(user)
            self._users.pop(user, None)
        if self._users:
            self._wake.set()

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
        self._keys.update(dict.fromkeys(keys))
        self._users.update(dict.fromkeys(users))
        await self._watching.renew_some(keys, users)

    async def _compare(self, keys: Sequence[ConversationKey]) -> None:
        ahead: list[Conversation] = []
        for portion in portions(keys, _KEYS_AT_ONCE):
            ahead += filter(self._is_ahead, await self._heads.rows(portion))
        if not ahead:
            return
        await asyncio.sleep(_UNDER_WAY_SECONDS)
        ahead = list(filter(self._is_ahead, ahead))
        # Who is told syncs by the cached heads; the writer may not have raised them yet, or it
        # died before it could.
        with suppress(TierUnavailable):
            await self._cached.append([ConversationWrite.of_head(row) for row in ahead])
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

    async def _compare_list(self, user: UserId) -> None:
        """What became the user's, or changed otherwise, without a note that arrived."""
        before = self._watching.list_versions.get(user)
        if before is None:
            return
        lines = await self._hot.conversations_of(user, changed_after=before)
        if not lines or not self._registry.of_user(user):
            return
        rows = await self._hot.views(user, [line.conversation for line in lines])
        for row, member in rows.values():
            connections = [c for c in self._registry.of_user(user) if c.push]
            watching = [row.key in connection.watched for connection in connections]
            if any(watching) if member.left_at else not all(watching):
                self._memberships.settle(row.key, row.id, (user,))
            else:
                for connection in connections:
                    connection.write(Notice(row.id))
        if user in self._watching.list_versions:
            self._watching.list_versions[user] = max(line.version for line in lines)

    async def _tell_others(self) -> None:
        """Asks the tier who watches what was not published, and tells them the heads."""
        for keys in portions(list(self._unpublished), _KEYS_AT_ONCE):
            rows = {row.key: row for row in await self._heads.rows(keys)}
            writes = [ConversationWrite.of_head(row) for row in rows.values()]
            others = await self._cached.append(writes)
            for key in keys:
                self._unpublished.pop(key, None)
                row = rows.get(key)
                if row is not None:
                    told = Told.of(row)
                    self.told(told)
                    self._publisher.tell(told, others.get(key, ()))
            self._metrics.unpublished.set(len(self._unpublished))
        if self._too_many_unpublished:
            self._too_many_unpublished = False
            self._publisher.tell_everything(self.heard_of())
