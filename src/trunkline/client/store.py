"""What an endpoint keeps on its device, and the store that keeps it in memory."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from trunkline.errors import StoreOfAnotherEndpoint
from trunkline.model import ConversationId, ConversationKind, EndpointId, Entry, Seq, UserId


class Copy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An endpoint's copy of one conversation, without its entries.

    It holds first..last (nothing yet: last = first − 1), whose digest is `digest`. `head`
    is the highest seq known of; `unread` counts up to `unread_at`. `mark_waits`: the server
    was not told of the marker yet. `shredded`: the server has destroyed its key.
    """

    conversation: ConversationId
    kind: ConversationKind
    first: Seq
    last: Seq
    head: Seq
    digest: bytes
    digest_key: bytes
    marker: Seq = Seq(0)
    unread: int = 0
    unread_at: Seq = Seq(0)
    name: str | None = None
    left: bool = False
    last_time_ms: int = 0
    mark_waits: bool = False
    shredded: bool = False


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A frame of the outbox, MessagePack, with its place in the order of sending."""

    number: int
    frame: bytes


class Loaded(msgspec.Struct, frozen=True):
    """All that a store holds of an endpoint but the entries; the outbox in order."""

    cursor: int = 0
    copies: Sequence[Copy] = ()
    outbox: Sequence[Outgoing] = ()


class Changes(msgspec.Struct, frozen=True):
    """What happened to an endpoint since its last changes, applied in this order.

    `dropped` copies lose their entries; each of `runs` continues its conversation (parts
    are contiguous); `copies` replace; `settled` are numbers of the outbox.
    """

    dropped: Sequence[ConversationId] = ()
    runs: Sequence[tuple[ConversationId, Sequence[list[Entry]]]] = ()
    copies: Sequence[Copy] = ()
    posted: Sequence[Outgoing] = ()
    settled: Sequence[int] = ()
    cursor: int | None = None


class EndpointStore(Protocol):
    """One endpoint's part of a local store. May raise `StorageFull`, `StorageUnavailable`."""

    async def load(self) -> Loaded:
        """What is stored."""
        ...

    def write(self, changes: Changes) -> None:
        """Takes changes over; they are durable, all or none, after the next `flush`."""
        ...

    async def flush(self) -> None:
        """Returns once all that was written before is on disk."""
        ...

    async def read(
        self, conversation: ConversationId, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry]:
        """The entries of the range that were written; flushes first."""
        ...

    async def close(self) -> None:
        """Flushes and lets go of the endpoint."""
        ...


class LocalStore(Protocol):
    """Holds any number of endpoints."""

    async def open(self, user: UserId, endpoint: EndpointId) -> EndpointStore:
        """Opens an endpoint's part, made if need be.

        Raises `StoreOfAnotherEndpoint` if it is open already.
        """
        ...

    async def close(self) -> None:
        """Flushes and closes the store."""
        ...


class _Kept:
    """What is durable of one endpoint."""

    def __init__(self) -> None:
        self.cursor = 0
        self.copies: dict[ConversationId, Copy] = {}
        self.entries: dict[ConversationId, list[Entry]] = {}
        self.outbox: dict[int, Outgoing] = {}

    def apply(self, changes: Changes) -> None:
        for conversation in changes.dropped:
            self.entries.pop(conversation, None)
        for conversation, parts in changes.runs:
            entries = self.entries.setdefault(conversation, [])
            for part in parts:
                entries.extend(part)
        for copy in changes.copies:
            self.copies[copy.conversation] = copy
        for outgoing in changes.posted:
            self.outbox[outgoing.number] = outgoing
        for number in changes.settled:
            self.outbox.pop(number, None)
        if changes.cursor is not None:
            self.cursor = changes.cursor


class MemoryStore:
    """Keeps endpoints in memory; `crash` forgets what was not flushed, as a power cut does."""

    def __init__(self) -> None:
        self._kept: dict[tuple[UserId, EndpointId], _Kept] = {}
        self._open: dict[tuple[UserId, EndpointId], _MemoryEndpoint] = {}

    async def open(self, user: UserId, endpoint: EndpointId) -> EndpointStore:
        key = (user, endpoint)
        if key in self._open:
            raise StoreOfAnotherEndpoint(f"Endpoint {endpoint!r} of {user!r} is open already.")
        handle = _MemoryEndpoint(self, key, self._kept.setdefault(key, _Kept()))
        self._open[key] = handle
        return handle

    def crash(self, user: UserId, endpoint: EndpointId) -> None:
        """The device lost power: what was not flushed is gone, its handle writes no more."""
        handle = self._open.pop((user, endpoint), None)
        if handle is not None:
            handle.crash()

    def let_go(self, key: tuple[UserId, EndpointId]) -> None:
        """The endpoint was closed and may be opened again."""
        self._open.pop(key, None)

    async def close(self) -> None:
        for handle in list(self._open.values()):
            await handle.close()


class _MemoryEndpoint:
    def __init__(self, store: MemoryStore, key: tuple[UserId, EndpointId], kept: _Kept) -> None:
        self._store = store
        self._key = key
        self._kept = kept
        self._written: list[Changes] = []
        self._crashed = False

    async def load(self) -> Loaded:
        kept = self._kept
        outbox = [kept.outbox[number] for number in sorted(kept.outbox)]
        return Loaded(kept.cursor, list(kept.copies.values()), outbox)

    def write(self, changes: Changes) -> None:
        if not self._crashed:
            self._written.append(changes)

    async def flush(self) -> None:
        await asyncio.sleep(0)
        for changes in self._written:
            self._kept.apply(changes)
        self._written.clear()

    async def read(
        self, conversation: ConversationId, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry]:
        await self.flush()
        entries = self._kept.entries.get(conversation)
        if not entries:
            return []
        first = entries[0].seq
        return entries[max(0, after + 1 - first) : max(0, up_to_inclusive + 1 - first)]

    def crash(self) -> None:
        self._crashed = True
        self._written.clear()

    async def close(self) -> None:
        if not self._crashed:
            await self.flush()
            self._store.let_go(self._key)
