"""The load as the sending process itself sees it: batches that it commits a second."""

from collections.abc import Callable

from trunkline.ports.clock import Clock


class BatchLoad:
    """A `ports.load.Load` where the archiver runs in the process that takes the sends."""

    def __init__(
        self, batches_taken: Callable[[], int], clock: Clock, *, busy_batches_per_second: float
    ) -> None:
        """`batches_taken`: how many there were so far."""
        self._batches_taken = batches_taken
        self._clock = clock
        self._busy_rate = busy_batches_per_second
        self._seen = (clock.monotonic(), batches_taken())

    async def is_busy(self) -> bool:
        """Whether there were more than that, per second, since the last question."""
        then, before = self._seen
        now, batches = self._seen = (self._clock.monotonic(), self._batches_taken())
        return batches - before > self._busy_rate * (now - then)
