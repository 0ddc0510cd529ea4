"""When to look at which socket next: one look a socket, and no timer of its own."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Wheel(Generic[Item]):
    """Items by the tick in which they are due; an item put again is due only then."""

    def __init__(self, tick_seconds: float, now: float) -> None:
        self._tick_seconds = tick_seconds
        self._turned = int(now / tick_seconds)
        self._slots: dict[int, set[Item]] = {}

    def put(self, item: Item, at: float, before: int = 0) -> int:
        """Has the item come up at a time, not before; returns the slot, for the next `put`."""
        if before:
            self.take_out(item, before)
        slot = max(self._turned + 1, -int(-at // self._tick_seconds))
        self._slots.setdefault(slot, set()).add(item)
        return slot

    def take_out(self, item: Item, slot: int) -> None:
        """The item does not come up any more."""
        items = self._slots.get(slot)
        if items is not None:
            items.discard(item)
            if not items:
                del self._slots[slot]

    def turn(self, now: float) -> list[Item]:
        """What is due by now."""
        due: list[Item] = []
        last = int(now / self._tick_seconds)
        for slot in range(self._turned + 1, last + 1):
            due += self._slots.pop(slot, ())
        self._turned = max(self._turned, last)
        return due
