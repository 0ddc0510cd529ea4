"""The witness of a data directory: tells at a start whether it was copied or restored since.

It notes where the files stand in the file system, its own place too, and how far they had come.
A copy has other inodes. An older file that was written over one in place has the inode and goes
back: either behind what is noted, or it brought an old witness along, which then names the place
of the file that was its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.places import Place, place_of
from trunkline.errors import TrunklineError

FILE: Final = "witness"

log = logging.getLogger(__name__)


class Reached(msgspec.Struct, frozen=True):
    """How far a directory had come: its last commit, and the last row of its cold file."""

    commit: int = 0
    cold_row: int = 0


class Noted(msgspec.Struct, frozen=True):
    """The content of the file `witness`: `own` place, those of the databases by name."""

    own: Place
    files: dict[str, Place]
    reached: Reached


class Witness:
    """Reads and writes the witness of one directory."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._path = directory.path / FILE
        self._databases = (directory.journal, directory.tables, directory.cold)
        self._stopping = asyncio.Event()

    def contradiction(self, reached: Reached) -> str:
        """Why this is not the directory, or not the moment, that was left; empty: it is.

        `reached`: how far its files have come.
        """
        try:
            noted = msgspec.json.decode(self._path.read_bytes(), type=Noted)
        except FileNotFoundError:
            return f"the file {FILE} is gone"
        except msgspec.DecodeError:
            return f"the file {FILE} is not what was written"
        return contradiction(noted, self._stand(self._path, reached))

    def write(self, reached: Reached) -> None:
        """Notes how things stand; on disk when it returns."""
        self._directory.replace(FILE, lambda new: self._stand(new, reached))

    def _stand(self, own: Path, reached: Reached) -> Noted:
        places = {path.name: place_of(path) for path in self._databases}
        return Noted(place_of(own), places, reached)

    def stop(self) -> None:
        """Lets `run` end."""
        self._stopping.set()

    async def run(self, every_seconds: float, reached: Callable[[], Awaitable[Reached]]) -> None:
        """Writes what has been reached, again and again, until stopped; then once more."""
        before = None
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(every_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            try:
                now = await reached()
                if now != before or self._stopping.is_set():
                    await asyncio.to_thread(self.write, now)
                    before = now
            except (OSError, TrunklineError) as error:
                # It only tells later what is lost: nothing waits for it.
                log.warning("the witness was not written: %s", error)


def contradiction(noted: Noted, found: Noted) -> str:
    """What of `found` cannot follow on what was noted; empty: nothing."""
    if not found.own.is_that_of(noted.own):
        return f"the file {FILE} is a copy"
    for name, place in noted.files.items():
        if name not in found.files or not found.files[name].is_that_of(place):
            return f"{name} is a copy, or was put there from elsewhere"
    if found.reached.commit < noted.reached.commit:
        lost = noted.reached.commit - found.reached.commit
        return f"the last {lost} of the commits that were there are gone"
    if found.reached.cold_row < noted.reached.cold_row:
        return "cold.db is older than it was"
    return ""
