"""How long to wait before the next try: exponential with full jitter; and how fast to send."""

from collections.abc import Callable

from trunkline.errors import TrunklineError


class Backoff:
    """Delays of consecutive failures (full jitter: a random part of the bound).

    `uniform` returns a random number in [0, 1).
    """

    def __init__(
        self, uniform: Callable[[], float], *, first_seconds: float, most_seconds: float
    ) -> None:
        self._uniform = uniform
        self._first = first_seconds
        self._most = most_seconds
        self.failures = 0

    def failed(self, error: TrunklineError | None = None) -> float:
        """Seconds to wait after one more failure; never less than the server asked for."""
        bound = min(self._most, self._first * 2 ** min(self.failures, 16))
        self.failures += 1
        asked = (error.retry_after_seconds if error is not None else None) or 0.0
        return float(asked + self._uniform() * bound)

    def succeeded(self) -> None:
        """The next failure is a first one again."""
        self.failures = 0


class Pace:
    """A token bucket: at most `burst` sends at once, `per_second` over time (0: no limit)."""

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._rate = per_second
        self._burst = max(1, burst)
        self._tokens = float(self._burst)
        self._at = now

    def wait_seconds(self, now: float) -> float:
        """Seconds until one more may be sent; 0 if it may now, and then it is counted."""
        if self._rate <= 0:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
