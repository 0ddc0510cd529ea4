"""Event loop in virtual time: a seed chooses which ready callback runs next; nothing ever waits.

What runs on it runs in the same way whenever the seed is the same. No real I/O is allowed.
"""

import asyncio
import random
import selectors
from collections.abc import Mapping
from typing import Any, Final

_TURN_SECONDS: Final = 1e-6


class Deadlock(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits would wait for ever."""


class _NoSelector(selectors.BaseSelector):
    """Stands where a loop asks for I/O: moves the time instead of waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Takes the loop's own wake-up pipe, which never becomes readable here."""
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forgets it."""
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Moves the time to the next timer; raises `Deadlock` if there is none."""
        if timeout is None:
            raise Deadlock("nothing is ready and nothing is scheduled")
        # A turn takes time, as it does outside: who tries again at once must not stop the clock.
        self.now += max(timeout, _TURN_SECONDS)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Nothing is registered."""
        return {}


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time is virtual and whose order of callbacks a seed decides.

    Attributes:
        steps: callbacks run so far.
        faults: what callbacks and tasks raised that nobody took, as text.
    """

    _ready: Any  # asyncio's own queue of callbacks; the order within it is the seed's

    def __init__(self, seed: int) -> None:
        self._virtual = _NoSelector()
        super().__init__(self._virtual)
        self._order = random.Random(f"order {seed}")
        self._clock_resolution = 1e-9
        self.steps = 0
        self.faults: list[str] = []
        self.set_exception_handler(self._note_fault)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now

    def _note_fault(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        ready = self._ready
        if len(ready) > 1:
            mixed = list(ready)
            self._order.shuffle(mixed)
            ready.clear()
            ready.extend(mixed)
        self.steps += len(ready)
        super()._run_once()  # type: ignore[misc]
