"""The system's clock, for clients that are given no other."""

import time


class SystemClock:
    """Wall time in milliseconds, monotonic time in seconds."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
