"""Identity: which store this is, and which life of it (DESIGN section 1)."""

from typing import Protocol

from trunkline.model import StoreLife


class Identity(Protocol):
    """Kept with the store itself, so that whoever restores or copies one takes it along."""

    @property
    def life(self) -> StoreLife:
        """As of now; never asks anything."""
        ...

    async def begin(self, why: str) -> StoreLife:
        """Begins the next generation, since something that was shown may be gone.

        Durable when it returns. `why` is for the operator. Raises `StorageFull`,
        `StorageUnavailable`.
        """
        ...
