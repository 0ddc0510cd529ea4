"""Generations: which cached heads count, in the hot tier (`core.generations`)."""

from typing import Protocol

from trunkline.core.generations import Generation


class Generations(Protocol):
    """A register for each database, by the number of its lane.

    Both methods raise `StorageUnavailable`, `replace` also `OutcomeUnknown`.
    """

    async def current(self, lane: int) -> Generation:
        """What stands there, as of the last commit."""
        ...

    async def replace(self, lane: int, old: Generation, new: Generation) -> bool:
        """Puts `new` in the place of `old`; False, and nothing is changed, if it is another."""
        ...
