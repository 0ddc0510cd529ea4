"""Puts the adapter together: one connection for commands, one for the inbox."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from trunkline.adapters.redis.backlog import Backlog
from trunkline.adapters.redis.bus import RedisBus
from trunkline.adapters.redis.cached import RedisCachedTier
from trunkline.adapters.redis.cluster import Cluster
from trunkline.adapters.redis.connection import Connection
from trunkline.adapters.redis.dialling import Address, Dialler
from trunkline.adapters.redis.heads import RedisHeads
from trunkline.adapters.redis.keys import Keys
from trunkline.adapters.redis.lookout import Lookout
from trunkline.adapters.redis.refusals import Refusals, Refused
from trunkline.adapters.redis.registrations import Registrations, Renewal
from trunkline.adapters.redis.servers import Servers, SingleServer
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.subscription import Subscription
from trunkline.adapters.redis.unanswered import Unanswered
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, UserId, WorkerId
from trunkline.ports.bus import Forgotten
from trunkline.ports.clock import Clock
from trunkline.ports.readiness import TierHealth
from trunkline.ports.readings import Reading

log = logging.getLogger(__name__)


class RedisStores:
    """`cached`, `heads` and `bus` of one worker, between `async with` and its end."""

    cached: RedisCachedTier
    heads: RedisHeads
    bus: RedisBus

    def __init__(
        self, settings: Settings, worker: WorkerId, clock: Clock, jitter: Callable[[], float]
    ) -> None:
        dialler = Dialler(settings, worker)
        keys = Keys(settings.prefix)
        self._refusals = Refusals()
        self._servers: Servers = _servers(settings, dialler, jitter, self._refusals, keys)
        servers = self._servers
        self._watched: Registrations[ConversationKey] = Registrations(
            servers, worker, settings, keys.watchers
        )
        self._presence: Registrations[UserId] = Registrations(
            servers, worker, settings, keys.workers
        )
        tag, channel = keys.inbox(worker)
        backlog = Backlog(settings.inbox_packets, settings.inbox_bytes)
        self._subscription = Subscription(channel, tag, servers, dialler, settings, jitter, backlog)
        self._renewal = Renewal(settings, backlog.tell_of_gap, self._watched, self._presence)
        self._lookout = Lookout(
            settings,
            (self._watched, lambda keys: backlog.put(Forgotten(keys, ()))),
            (self._presence, lambda users: backlog.put(Forgotten((), users))),
        )
        unanswered = self._unanswered = Unanswered(clock)
        self.cached = RedisCachedTier(servers, worker, keys, self._watched, unanswered, settings)
        self.heads = RedisHeads(servers, keys, unanswered, settings)
        self.bus = RedisBus(servers, worker, keys, self._presence, backlog, unanswered, settings)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def readings(self) -> list[Reading]:
        """What an operator may want to know of the tier."""
        return [
            *self.cached.readings(),
            *self._refusals.readings(),
            *self._lookout.readings(),
            Reading("trunkline_cached_unanswered", "", lambda: self._unanswered.calls),
            Reading("trunkline_cached_away", "", self._servers.away),
        ]

    def health(self) -> TierHealth:
        """Whether it answers; nothing that is stored needs it."""
        return TierHealth(
            "cached", False, lambda: TierUnavailable.code if self._servers.away() else ""
        )

    async def __aenter__(self) -> Self:
        try:
            await self._servers.open(self._renewal.now)
            await self._subscription.subscribe()
        except TierUnavailable as error:
            if isinstance(error, Refused) and error.lasts:
                await self._servers.close()
                raise
            log.warning("going on without the cached tier: %s", error)
            self._servers.look_again()
        await self._group.__aenter__()
        self._tasks = [
            self._group.create_task(part.run())
            for part in (self._servers, self._subscription, self._renewal, self._lookout)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._watched.leave()
            await self._presence.leave()
        except TierUnavailable as failure:
            # Whoever finds nobody listening takes this worker out, or time does.
            log.info("not taken out of Redis on closing: %s", failure)
        finally:
            for task in self._tasks:
                task.cancel()
            try:
                # The group learns only of its own cancelling: other errors of the body stay
                # what they are and are not wrapped.
                if kind is not None and issubclass(kind, asyncio.CancelledError):
                    await self._group.__aexit__(kind, error, trace)
                else:
                    await self._group.__aexit__(None, None, None)
            finally:
                await self._subscription.close()
                await self._servers.close()


def open_redis(
    settings: Settings, worker: WorkerId, clock: Clock, jitter: Callable[[], float]
) -> RedisStores:
    """The cached tier and the bus of one worker: `async with open_redis(...) as stores`.

    `worker` is new at each start; `jitter` draws from [0, 1). Raises `ConfigInvalid` where
    the settings are wrong, and on entering `TierUnavailable` where Redis refuses the login or
    is too old. It may be away then, and come and go later.
    """
    return RedisStores(settings, worker, clock, jitter)


def _servers(
    settings: Settings,
    dialler: Dialler,
    jitter: Callable[[], float],
    refusals: Refusals,
    keys: Keys,
) -> Servers:
    addresses = [Address.parse(node) for node in settings.nodes]
    if len(addresses) > 1:
        return Cluster(addresses, dialler, settings, jitter, refusals, keys)
    _, mark = keys.life(0)
    return SingleServer(Connection(addresses[0], dialler, settings, jitter, refusals, mark))
