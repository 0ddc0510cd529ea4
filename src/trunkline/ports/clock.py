"""Clock: time as the services see it."""

from typing import Protocol


class Clock(Protocol):
    """Wall time for display and expiry, monotonic time for everything else."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC); may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never jumps."""
        ...
