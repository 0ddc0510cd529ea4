"""Bytes that wait on behalf of sockets, with a bound on their sum: who is laziest goes first."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class Backlog(Generic[Holder]):
    """What each holder has waiting, the one first that made no progress for longest."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of all holders together."""
        self.most_bytes = most_bytes
        self.total_bytes = 0
        self._held: dict[Holder, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Holder]:
        return iter(tuple(self._held))

    def hold(self, holder: Holder, size: int) -> None:
        """So much waits for the holder now."""
        self.total_bytes += size - self._held.get(holder, 0)
        self._held[holder] = size

    def progressed(self, holder: Holder) -> None:
        """The holder goes to the end of the queue of those that are given up."""
        if holder in self._held:
            self._held[holder] = self._held.pop(holder)

    def release(self, holder: Holder) -> None:
        """Nothing waits for the holder any more."""
        self.total_bytes -= self._held.pop(holder, 0)

    def given_up(self) -> Iterator[Holder]:
        """Those to give up, until what is left keeps to the bound; they hold nothing more."""
        while self.total_bytes > self.most_bytes:
            holder = next(iter(self._held))
            self.release(holder)
            yield holder
