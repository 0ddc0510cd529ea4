"""Which store this is, in memory, for tests and the simulation."""

from collections.abc import Callable

from trunkline.core.lives import first_life, next_life
from trunkline.model import StoreLife


class MemoryIdentity:
    """A `ports.identity.Identity` that ends with the process."""

    def __init__(self, random_bytes: Callable[[int], bytes], made_ms: int = 0) -> None:
        self.life = first_life(random_bytes, made_ms)
        self._random_bytes = random_bytes

    async def begin(self, why: str) -> StoreLife:
        """Begins the next generation."""
        self.life = next_life(self.life, self._random_bytes)
        return self.life
