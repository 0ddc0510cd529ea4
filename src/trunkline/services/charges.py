"""What users may cause: one bucket a user for each kind of work, over all their connections."""

from typing import Final

from trunkline.core.session import TokenBucket
from trunkline.model import UserId
from trunkline.ports.clock import Clock

_LOOKED_THROUGH_FROM: Final = 100_000
"""Buckets from which on those that are full again are looked for, and forgotten."""


class Charges:
    """The buckets of one kind of work, of this worker."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        """`rate`: units a second; `burst`: units at once."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[UserId, TokenBucket] = {}
        self._look_from = _LOOKED_THROUGH_FROM

    def of(self, user: UserId) -> TokenBucket:
        """The user's bucket; whoever keeps it keeps it while the user is connected."""
        bucket = self._buckets.get(user)
        if bucket is None:
            now = self._clock.monotonic()
            if len(self._buckets) >= self._look_from:
                self._buckets = {u: b for u, b in self._buckets.items() if not b.full(now)}
                self._look_from = max(_LOOKED_THROUGH_FROM, 2 * len(self._buckets))
            bucket = self._buckets[user] = TokenBucket(self._rate, self._burst, now)
        return bucket

    def take(self, user: UserId, amount: float = 1.0) -> None:
        """Takes `amount` units of a user's; raises `RateLimited` with the time to wait."""
        self.of(user).take(self._clock.monotonic(), amount)
