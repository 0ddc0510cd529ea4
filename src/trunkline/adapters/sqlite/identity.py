"""Which store a data directory is: what its file `format` says."""

import asyncio
import logging

from trunkline.adapters.sqlite.database import translated
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.core.lives import RandomBytes
from trunkline.model import StoreLife

log = logging.getLogger(__name__)


class DirectoryIdentity:
    """A `ports.identity.Identity` over a directory that is open."""

    def __init__(self, directory: DataDirectory, random_bytes: RandomBytes) -> None:
        self._directory = directory
        self._random_bytes = random_bytes

    @property
    def life(self) -> StoreLife:
        """As of now."""
        return self._directory.life

    async def begin(self, why: str) -> StoreLife:
        """Begins the next generation; durable when it returns."""
        return await asyncio.to_thread(self.begin_now, why)

    def begin_now(self, why: str) -> StoreLife:
        """The same, blocking."""
        with translated("format"):
            life = self._directory.begin(self._random_bytes)
        log.warning("store generation %d begins (%s): %s", life.generation, life.mark, why)
        return life
