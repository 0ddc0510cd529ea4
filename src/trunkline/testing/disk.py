"""Disk that forgets at a crash what was not synced, and that may be full or failing for a while."""

import asyncio
import random
from collections.abc import Sequence

from trunkline.errors import StorageFull, StorageUnavailable


class SimulatedDisk:
    """Files by name. What `crash` leaves of the unsynced end of each is the seed's choice.

    Attributes:
        full: no record is taken while it is set.
        sync_fails: the share of syncs that answer with an error, 0 to 1.
        sync_seconds: the mean time of a sync.
    """

    def __init__(self, seed: int, *, sync_seconds: float = 0.002) -> None:
        self.random = random.Random(f"disk {seed}")
        self.full = False
        self.sync_fails = 0.0
        self.sync_seconds = sync_seconds
        self._files: dict[str, SimulatedFile] = {}

    def open(self, name: str) -> "SimulatedFile":
        """The file, made if need be."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = SimulatedFile(self, [])
        return file

    def crash(self) -> int:
        """The power goes: returns how many records were forgotten.

        Handles opened before write nothing any more: what still runs of the process that
        held them cannot reach the disk.
        """
        forgotten = 0
        for name, file in self._files.items():
            kept = file.crash()
            forgotten += len(file.records()) - len(kept)
            self._files[name] = SimulatedFile(self, kept)
        return forgotten


class SimulatedFile:
    """An append-only file of whole records: a journal as the memory stores want it."""

    def __init__(self, disk: SimulatedDisk, records: list[bytes]) -> None:
        self._disk = disk
        self._records = records
        self._synced = len(records)
        self._dead = False

    def append(self, record: bytes) -> None:
        """Adds a record; raises `StorageFull` and adds nothing."""
        if self._dead:
            raise StorageUnavailable("The machine is off.")
        if self._disk.full:
            raise StorageFull
        self._records.append(record)

    async def sync(self) -> None:
        """Returns once what was appended before the call is on disk.

        Raises `StorageUnavailable` now and then: some of it is on disk then, or none.
        """
        disk, reach = self._disk, len(self._records)
        await asyncio.sleep(disk.random.expovariate(1 / disk.sync_seconds))
        if self._dead:
            raise StorageUnavailable("The machine is off.")
        if disk.random.random() < disk.sync_fails:
            self._synced = disk.random.randint(self._synced, max(self._synced, reach))
            raise StorageUnavailable("The disk answers with an error.")
        self._synced = max(self._synced, reach)

    def records(self) -> Sequence[bytes]:
        """All records, oldest first."""
        return tuple(self._records)

    def crash(self) -> list[bytes]:
        """What is left of the file: all that was synced, and perhaps some of the rest."""
        self._dead = True
        return self._records[: self._disk.random.randint(self._synced, len(self._records))]
