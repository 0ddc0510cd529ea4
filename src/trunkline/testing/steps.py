"""Ends, cuts short or freezes whoever works on stores, at any one of their calls."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, TypeVar

from trunkline.errors import TrunklineError

Answer = TypeVar("Answer")


class Ended(Exception):
    """The worker ended here, as by kill -9: nothing of it runs any more."""


class Moment(StrEnum):
    """What happens at the chosen call."""

    BEFORE = "before"
    """The worker ends before the store hears of it."""
    DURING = "during"
    """The worker ends while the store is at it."""
    AFTER = "after"
    """The worker ends once the store has done it."""
    REFUSED = "refused"
    """The store does nothing and says so; the worker goes on."""
    UNANSWERED = "unanswered"
    """The store does it, but says that it does not know; the worker goes on."""
    FROZEN = "frozen"
    """The worker stands still until `Steps.thaw`."""


class Steps:
    """Counts a worker's calls; at the `at`-th something happens.

    Attributes:
        reached: set once it has.
        thaw: lets a frozen worker go on.
    """

    def __init__(self, at: int, moment: Moment) -> None:
        self._at = at
        self._moment = moment
        self._calls = 0
        self.reached = asyncio.Event()
        self.thaw = asyncio.Event()

    async def take(
        self,
        call: Callable[[], Awaitable[Answer]],
        refused: TrunklineError,
        unanswered: TrunklineError,
    ) -> Answer:
        """Makes a call, or does what is to happen to it."""
        self._calls += 1
        if self._calls != self._at:
            return await call()
        self.reached.set()
        match self._moment:
            case Moment.BEFORE:
                raise Ended
            case Moment.DURING:
                await _cut_short(call, turns=self._at % 7)
                raise Ended
            case Moment.AFTER:
                await call()
                raise Ended
            case Moment.REFUSED:
                raise refused
            case Moment.UNANSWERED:
                await call()
                raise unanswered
            case Moment.FROZEN:
                await self.thaw.wait()
                return await call()


class Stepped:
    """A store each call of which is a step. `refused` and `unanswered` are its errors."""

    def __init__(
        self, store: object, steps: Steps, refused: TrunklineError, unanswered: TrunklineError
    ) -> None:
        self._store = store
        self._steps = steps
        self._errors = (refused, unanswered)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*arguments: object) -> Any:
            return await self._steps.take(lambda: method(*arguments), *self._errors)

        return call


async def _cut_short(call: Callable[[], Awaitable[object]], turns: int) -> None:
    """Cancels a call after so many turns of the loop; it may be over before."""

    async def made() -> None:
        with suppress(TrunklineError):
            await call()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(made())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
