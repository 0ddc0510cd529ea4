"""Drives what must be on disk before it counts: journal first, then the state (I4, I5)."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import msgspec

from trunkline.errors import OutcomeUnknown, StorageUnavailable

Record = TypeVar("Record")


class Journal(Protocol):
    """An append-only file of records, on a disk that may forget what was not synced."""

    def append(self, record: bytes) -> None:
        """Adds a record whole, or raises (`StorageFull`) and adds nothing of it."""
        ...

    async def sync(self) -> None:
        """Returns once all records are on disk.

        After `StorageUnavailable` it is unknown which are.
        """
        ...

    def records(self) -> Sequence[bytes]:
        """All records, oldest first."""
        ...


class JournaledWrites(Generic[Record]):
    """One write at a time: appended to the journal, synced, and only then applied.

    A sync that failed or was cancelled leaves it unknown whether its record stays. The
    next write settles that: it syncs again, and the state is rebuilt from what the
    journal holds. Until then readers see the state before.
    """

    def __init__(
        self,
        journal: Journal | None,
        decoder: msgspec.msgpack.Decoder[Record],
        *,
        clear: Callable[[], None],
        apply: Callable[[Record], None],
    ) -> None:
        self._journal = journal
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = decoder.decode
        self._clear = clear
        self._apply = apply
        self._lock = asyncio.Lock()
        self._unsettled = False
        self._rebuild()

    async def __aenter__(self) -> "JournaledWrites[Record]":
        """Begins a write: from here to its end nothing else changes the state."""
        await self._lock.acquire()
        try:
            if self._unsettled:
                await self._settle()
        except BaseException:
            self._lock.release()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    async def commit(self, record: Record) -> None:
        """Makes a record durable and applies it; only within `async with`.

        Raises `OutcomeUnknown` if the sync failed; what the journal's `append` raises
        changed nothing.
        """
        if self._journal is not None:
            self._journal.append(self._encode(record))
            self._unsettled = True
            try:
                await self._journal.sync()
            except StorageUnavailable as error:
                raise OutcomeUnknown from error
            self._unsettled = False
        self._apply(record)

    async def _settle(self) -> None:
        assert self._journal is not None
        await self._journal.sync()
        self._rebuild()
        self._unsettled = False

    def _rebuild(self) -> None:
        if self._journal is None:
            return
        self._clear()
        for record in self._journal.records():
            self._apply(self._decode(record))
