"""Keeps what was read lately, bounded by bytes and by age, to give it again."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from trunkline.ports.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key; the longest unused go first.

    What is committed never changes, but a body may be erased, in another worker too: so
    nothing is kept for longer than `most_seconds`, however often it is asked for.

    Attributes:
        size_bytes: what is kept now, as its putters said.
    """

    def __init__(self, clock: Clock, *, most_bytes: int, most_seconds: float) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._values: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: K) -> V | None:
        """The value, unless it is too old or was pushed out."""
        found = self._values.get(key)
        if found is None:
            return None
        value, _, until = found
        if until <= self._clock.monotonic():
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Keeps a value instead of the one before; one larger than all the room is not kept."""
        self._drop(key)
        if size_bytes > self._most_bytes:
            return
        until = self._clock.monotonic() + self._most_seconds
        self._values[key] = (value, size_bytes, until)
        self.size_bytes += size_bytes
        while self.size_bytes > self._most_bytes:
            self._drop(next(iter(self._values)))

    def forget_old(self) -> None:
        """Drops what is too old."""
        now = self._clock.monotonic()
        for key in [key for key, (_, _, until) in self._values.items() if until <= now]:
            self._drop(key)

    def _drop(self, key: K) -> None:
        dropped = self._values.pop(key, None)
        if dropped is not None:
            self.size_bytes -= dropped[1]
