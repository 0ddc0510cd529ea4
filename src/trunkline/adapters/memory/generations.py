"""The cache generation in memory, for tests and the simulation."""

from trunkline.core.generations import Generation


class MemoryGenerations:
    """A `ports.generations.Generations` of one lane, closed at first."""

    def __init__(self) -> None:
        self._current = Generation.closed(0)

    async def current(self, lane: int) -> Generation:
        """What stands there."""
        return self._current

    async def replace(self, lane: int, old: Generation, new: Generation) -> bool:
        """Puts `new` in the place of `old`; False if it is another."""
        if self._current != old:
            return False
        self._current = new
        return True
