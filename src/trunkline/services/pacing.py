"""Long work in portions: whoever else the loop serves comes in between."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, TypeVar

AT_ONCE: Final = 250
"""So many items are about a millisecond of work."""

T = TypeVar("T")


def portions(items: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """The items, so many at once."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def paced(items: Sequence[T], size: int = AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """The same; between two portions the loop does what else waits."""
    for number, portion in enumerate(portions(items, size)):
        if number:
            await asyncio.sleep(0)
        yield portion


async def step_by_step(work: Iterator[None]) -> None:
    """Does work that comes back about every millisecond; in between the loop goes on."""
    for _ in work:
        await asyncio.sleep(0)
