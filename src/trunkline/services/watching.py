"""Registers with the tier what this worker watches and whom it serves, and takes it back later.

A connection is in the registry first, then registered here, and only then told anything that
it may compare with: what is committed in between reaches it in one way or another.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from trunkline.model import ConversationKey, UserId
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.services.pacing import portions
from trunkline.services.registry import Registry

_LINGER_SECONDS: Final = 10.0
"""So long, up to twice, a registration outlives its last connection: most come back."""
_AT_ONCE: Final = 1_000
"""So many registrations are renewed in one call."""


class Watching:
    """What the tier was told of this worker.

    Attributes:
        list_versions: of each user served here, the version of the conversation list up to
            which their connections know of it.
    """

    def __init__(self, cached: CachedTier, bus: Bus, registry: Registry) -> None:
        self._cached = cached
        self._bus = bus
        self._registry = registry
        self._deserted: dict[ConversationKey, None] = {}
        self._departed: dict[UserId, None] = {}
        registry.deserted = self._deserted
        registry.departed = self._departed
        self._keys: dict[ConversationKey, None] = {}
        self._users: dict[UserId, None] = {}
        self._leaving_keys: dict[ConversationKey, None] = {}
        self._leaving_users: dict[UserId, None] = {}
        self._left = asyncio.Event()
        self.list_versions: dict[UserId, int] = {}

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """From when it returns, what any worker commits to these conversations is sent here."""
        while self._leaving_keys and any(key in self._leaving_keys for key in keys):
            await self._left.wait()
        new = [key for key in keys if key not in self._keys]
        if not new:
            return
        await self._cached.watch(new)
        for key in new:
            self._keys[key] = None
            if self._registry.watched(key) is None:  # the connection went meanwhile
                self._deserted[key] = None

    async def present(self, user: UserId) -> None:
        """From when it returns, what concerns the user is sent here."""
        while user in self._leaving_users:
            await self._left.wait()
        if user in self._users:
            return
        await self._bus.present((user,))
        self._users[user] = None
        if not self._registry.of_user(user):
            self._departed[user] = None

    def listed(self, user: UserId, version: int) -> None:
        """The conversation list was read for a connection, up to this version of it."""
        self.list_versions[user] = min(version, self.list_versions.get(user, version))

    def served(self) -> list[UserId]:
        """The users whom the tier was told of."""
        return list(self._users)

    async def renew(self) -> None:
        """Registers everything again: the tier may have forgotten it."""
        await self.renew_some(list(self._keys), list(self._users))

    async def renew_some(self, keys: Sequence[ConversationKey], users: Sequence[UserId]) -> None:
        """Registers these again, where they still are registered."""
        for some_users in portions([user for user in users if user in self._users], _AT_ONCE):
            await self._bus.present(some_users)
        for some_keys in portions([key for key in keys if key in self._keys], _AT_ONCE):
            await self._cached.watch(some_keys)

    async def run(self) -> None:
        """Takes back what nobody here needs any more, until cancelled."""
        keys: list[ConversationKey] = []
        users: list[UserId] = []
        while True:
            await asyncio.sleep(_LINGER_SECONDS)
            await self._take_back(keys, users)
            keys, users = list(self._deserted), list(self._departed)

    async def _take_back(
        self, deserted: Sequence[ConversationKey], departed: Sequence[UserId]
    ) -> None:
        keys = [key for key in deserted if self._registry.watched(key) is None]
        users = [user for user in departed if not self._registry.of_user(user)]
        for key in deserted:
            self._deserted.pop(key, None)
        for user in departed:
            self._departed.pop(user, None)
        for key in keys:
            self._keys.pop(key, None)
        for user in users:
            self._users.pop(user, None)
            self.list_versions.pop(user, None)
        self._leaving_keys, self._leaving_users = dict.fromkeys(keys), dict.fromkeys(users)
        try:
            if keys:
                await self._cached.unwatch(keys)
            if users:
                await self._bus.absent(users)
        finally:
            self._leaving_keys, self._leaving_users = {}, {}
            self._left.set()
            self._left = asyncio.Event()
