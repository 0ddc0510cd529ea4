"""Looks, again and again, whether the server still knows where this worker is entered.

A key that was evicted or deleted takes registrations along, and nothing else would say so:
nobody publishes to a worker that nobody names.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from trunkline.adapters.redis.registrations import Registrations
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import TierUnavailable
from trunkline.ports.readings import Reading

_LEAST_PAUSE_SECONDS: Final = 0.02
"""Between two questions of some hundreds, however many there are."""

Tell = Callable[[Sequence[Any]], None]


class Lookout:
    """Enters this worker again where it is missing; then `tell` hears where that was."""

    def __init__(self, settings: Settings, *looked_at: tuple[Registrations[Any], Tell]) -> None:
        self._round_seconds = settings.lookout_seconds
        self._looked_at = looked_at
        self._found = 0

    def readings(self) -> list[Reading]:
        """How many were missing so far."""
        return [Reading("trunkline_cached_registrations_lost", "", lambda: self._found)]

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            for part, tell in self._looked_at:
                await self._look(part, tell)
            rest = began + self._round_seconds - asyncio.get_running_loop().time()
            await asyncio.sleep(max(_LEAST_PAUSE_SECONDS, rest))

    async def _look(self, part: Registrations[Any], tell: Tell) -> None:
        slices = part.in_slices()
        pause = self._round_seconds / len(self._looked_at) / (len(slices) + 1)
        for places in slices:
            try:
                lost = await part.mend(places)
            except TierUnavailable:
                return  # when it is reached again, this worker is entered everywhere
            if lost:
                self._found += len(lost)
                tell(lost)
            await asyncio.sleep(max(_LEAST_PAUSE_SECONDS, pause))
