"""Clock of the machine."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final


class SystemClock:
    """A `ports.clock.Clock` on the operating system's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC); may jump."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some fixed moment, those in which the machine was suspended, too."""
        return _monotonic()


def _monotonic_clock() -> Callable[[], float]:
    """What Linux calls CLOCK_MONOTONIC stands still while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


_monotonic: Final = _monotonic_clock()
