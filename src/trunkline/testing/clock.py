"""Clock on a simulated loop: wall time that is skewed and jumps, monotonic time that does not."""

import asyncio
from typing import Final

EPOCH_MS: Final = 1_700_000_000_000
"""Wall time when a simulation begins, milliseconds since 1970."""


class SimulatedClock:
    """A `ports.clock.Clock` of one machine.

    Args:
        loop: whose time passes.
        skew_ms: how far the wall time is off, milliseconds.
        boot_seconds: what the monotonic clock shows when the loop's time is 0.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, skew_ms: int = 0, boot_seconds: float = 0.0
    ) -> None:
        self._loop = loop
        self._boot_seconds = boot_seconds
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970, as this machine believes."""
        return EPOCH_MS + self.skew_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        """Seconds since this machine's boot; never jumps."""
        return self._boot_seconds + self._loop.time()

    def jump(self, by_ms: int) -> None:
        """Somebody set the wall clock."""
        self.skew_ms += by_ms


class StandingClock(SimulatedClock):
    """The clock of a machine that is frozen at times, and does not know.

    Attributes:
        stood_seconds: so long it was frozen in all.
    """

    stood_seconds = 0.0

    def monotonic(self) -> float:
        """Seconds since some fixed moment, but those in which it stood still."""
        return super().monotonic() - self.stood_seconds
