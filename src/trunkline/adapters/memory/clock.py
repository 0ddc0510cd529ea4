"""Clock of the machine."""

import time


class SystemClock:
    """A `ports.clock.Clock` on the operating system's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC); may jump."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never jumps."""
        return time.monotonic()
