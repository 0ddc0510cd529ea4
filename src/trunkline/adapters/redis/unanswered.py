"""Says in the log, but rarely, that Redis did not answer and the work went on without it."""

import logging
from typing import Final

from trunkline.errors import TierUnavailable
from trunkline.ports.clock import Clock

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 30.0


class Unanswered:
    """Counts calls without an answer; logs the first, then one line in half a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until = float("-inf")
        self.calls = 0

    def note(self, call: str, error: TierUnavailable) -> None:
        """A call went without."""
        self.calls += 1
        now = self._clock.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _PAUSE_SECONDS
            log.warning("%s went on without Redis (%d calls so far): %s", call, self.calls, error)
