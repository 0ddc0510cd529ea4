"""Finds out whose conversation list is full, after the fact: no operation waits for a count."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import structlog

from trunkline.errors import ListFull, TrunklineError
from trunkline.model import UserId
from trunkline.ports.clock import Clock
from trunkline.ports.hot import HotStore

_log = structlog.get_logger("trunkline.lists")
_JOINS_UNCOUNTED: Final = 100
"""After so many a list is counted: so far it may pass its bound, by each worker."""
_USERS_REMEMBERED: Final = 100_000
_USERS_AT_ONCE: Final = 100
_FULL_SECONDS: Final = 60.0
"""For so long a full list is believed to be full: it may have been emptied meanwhile."""


class ListBound:
    """The bound of users' conversation lists, as far as this worker knows of them."""

    def __init__(self, hot: HotStore, clock: Clock, *, most_lines: int) -> None:
        self._hot = hot
        self._clock = clock
        self._most_lines = most_lines
        self._uncounted = min(_JOINS_UNCOUNTED, max(1, most_lines // 10))
        self._joins: dict[UserId, int] = {}
        self._asked: dict[UserId, None] = {}
        self._full: dict[UserId, float] = {}

    def check(self, users: Iterable[UserId]) -> None:
        """Raises `ListFull` if one of them has as many conversations as a user may have."""
        if self._full and not self._full.keys().isdisjoint(users):
            raise ListFull

    def joined(self, users: Iterable[UserId]) -> None:
        """Each of them is put into one conversation more."""
        for user in users:
            joins = self._joins.get(user, 0) + 1
            if joins < self._uncounted:
                if len(self._joins) >= _USERS_REMEMBERED:
                    self._joins.clear()
                self._joins[user] = joins
            elif len(self._asked) < _USERS_REMEMBERED:
                self._joins.pop(user, None)
                self._asked[user] = None

    async def look(self) -> None:
        """Counts the lists that grew; a database that is away leaves its lists uncounted."""
        now = self._clock.monotonic()
        for user in [user for user, until in self._full.items() if until <= now]:
            del self._full[user]
            self._joins[user] = self._uncounted - 1
        for user in list(islice(self._asked, _USERS_AT_ONCE)):
            del self._asked[user]
            try:
                lines = len(await self._hot.conversations_of(user))
            except TrunklineError as error:
                _log.warning("list_not_counted", code=error.code, detail=error.detail)
                continue
            if lines >= self._most_lines:
                self._full[user] = now + _FULL_SECONDS
