"""What an endpoint keeps on its device, and the store that keeps it in memory."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from trunkline.errors import StoreOfAnotherEndpoint
from trunkline.model import (
    ConversationId,
    ConversationKind,
    EndpointId,
    Entry,
    Seq,
    StoreLife,
    UserId,
)


class Copy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An endpoint's copy of one conversation, without its entries.

    It holds first..last (nothing yet: last = first − 1), whose digest is `digest`. `head`
    is the highest seq known of; `unread` counts up to `unread_at`. `mark_waits`: the server
    was not told of the marker yet. `shredded`: the server has destroyed its key.
    `proof` is the server's, that it gave out `proved`.
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
    proved: Seq = Seq(0)
    proof: str = ""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A frame of the outbox, MessagePack, with its place in the order of sending."""

    number: int
    frame: bytes


class Met(msgspec.Struct, frozen=True, array_like=True):
    """The server's store as it was met last, and the server's clock then, milliseconds."""

    life: StoreLife
    time_ms: int


class Apart(msgspec.Struct, frozen=True):
    """What was set apart of a conversation: it is not, or no more, in the server's store.

    `number` names it within the local store; `store` is the id of the store that it is of,
    empty: not known; `copy` is the copy that it was part of. `settled`: what the store has,
    too, was taken out of it.
    """

    number: int
    store: str
    copy: Copy
    settled: bool = True


class Loaded(msgspec.Struct, frozen=True):
    """All that a part holds of an endpoint but the entries; the outbox in order.

    `unsettled`: conversations of which something is set apart that was not compared yet.
    """

    cursor: int = 0
    copies: Sequence[Copy] = ()
    outbox: Sequence[Outgoing] = ()
    met: Met | None = None
    unsettled: Sequence[ConversationId] = ()


class Changes(msgspec.Struct, frozen=True):
    """What happened to an endpoint since its last changes, applied in this order.

    `aside` are copies that are set apart, as they were, with parts that were to continue them,
    and whether to compare them with the copy to come; `dropped` copies lose their entries; each
    of `runs` continues its conversation (parts are contiguous); `copies` replace; `settled` are
    numbers of the outbox.
    """

    dropped: Sequence[ConversationId] = ()
    runs: Sequence[tuple[ConversationId, Sequence[list[Entry]]]] = ()
    copies: Sequence[Copy] = ()
    posted: Sequence[Outgoing] = ()
    settled: Sequence[int] = ()
    cursor: int | None = None
    met: Met | None = None
    aside: Sequence[tuple[Copy, Sequence[list[Entry]], bool]] = ()


class EndpointStore(Protocol):
    """One endpoint's part of a local store: what it holds of one store of a server.

    Of other stores it may hold parts besides; they are never mixed. May raise `StorageFull`,
    `StorageUnavailable`.
    """

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

    async def part_of(self, store: str) -> "EndpointStore":
        """The endpoint's part of another store, by its id; made if need be.

        The next `open` gives the part that was asked for last. This one takes what is still
        written to it, until the next `flush` of either.
        """
        ...

    async def apart(self) -> list[Apart]:
        """What is set apart: of this part, and the copies of all others; flushes first."""
        ...

    async def read_apart(self, number: int) -> list[Entry]:
        """The entries of something set apart, by its number."""
        ...

    async def settle(self, number: int, keep: Sequence[Entry]) -> None:
        """Of something set apart only this is kept; durable when it returns."""
        ...

    async def forget(self, numbers: Sequence[int]) -> None:
        """Deletes what is set apart, by numbers; durable when it returns."""
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
    """What is durable of one endpoint's part."""

    def __init__(self) -> None:
        self.cursor = 0
        self.copies: dict[ConversationId, Copy] = {}
        self.entries: dict[ConversationId, list[Entry]] = {}
        self.outbox: dict[int, Outgoing] = {}
        self.met: Met | None = None
        self.aside: list[tuple[Copy, list[Entry], bool]] = []

    def apply(self, changes: Changes) -> None:
        for copy, parts, compare in changes.aside:
            entries = self.entries.pop(copy.conversation, [])
            self.copies.pop(copy.conversation, None)
            entries = [*entries, *(entry for part in parts for entry in part)]
            if entries:
                self.aside.append((copy, entries, not compare))
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
        self.met = changes.met or self.met


class _Endpoint:
    """What is durable of one endpoint: its parts, the one used last at the end."""

    def __init__(self) -> None:
        self.parts: list[_Kept] = [_Kept()]

    def part_of(self, store: str) -> _Kept:
        for part in self.parts:
            if part.met is not None and part.met.life.id == store:
                self.parts.remove(part)
                break
        else:
            part = _Kept()
        self.parts.append(part)
        return part


class MemoryStore:
    """Keeps endpoints in memory; `crash` forgets what was not flushed, as a power cut does."""

    def __init__(self) -> None:
        self._kept: dict[tuple[UserId, EndpointId], _Endpoint] = {}
        self._open: dict[tuple[UserId, EndpointId], _MemoryEndpoint] = {}

    async def open(self, user: UserId, endpoint: EndpointId) -> EndpointStore:
        key = (user, endpoint)
        if key in self._open:
            raise StoreOfAnotherEndpoint(f"Endpoint {endpoint!r} of {user!r} is open already.")
        kept = self._kept.setdefault(key, _Endpoint())
        return self.hand_out(key, kept, kept.parts[-1])

    def hand_out(
        self, key: tuple[UserId, EndpointId], endpoint: _Endpoint, part: _Kept
    ) -> "_MemoryEndpoint":
        """Opens a part."""
        handle = self._open[key] = _MemoryEndpoint(self, key, endpoint, part)
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
    def __init__(
        self,
        store: MemoryStore,
        key: tuple[UserId, EndpointId],
        endpoint: _Endpoint,
        kept: _Kept,
    ) -> None:
        self._store = store
        self._key = key
        self._endpoint = endpoint
        self._kept = kept
        self._written: list[tuple[_Kept, Changes]] = []
        self._crashed = False

    async def load(self) -> Loaded:
        kept = self._kept
        outbox = [kept.outbox[number] for number in sorted(kept.outbox)]
        unsettled = [copy.conversation for copy, _, settled in kept.aside if not settled]
        return Loaded(kept.cursor, list(kept.copies.values()), outbox, kept.met, unsettled)

    def write(self, changes: Changes) -> None:
        if not self._crashed:
            self._written.append((self._kept, changes))

    async def flush(self) -> None:
        await asyncio.sleep(0)
        for kept, changes in self._written:
            kept.apply(changes)
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

    async def part_of(self, store: str) -> EndpointStore:
        await self.flush()
        handle = self._store.hand_out(self._key, self._endpoint, self._endpoint.part_of(store))
        handle._written = self._written
        return handle

    async def apart(self) -> list[Apart]:
        await self.flush()
        return [
            Apart(number, part.met.life.id if part.met is not None else "", copy, settled)
            for number, (part, copy, _, settled) in self._apart().items()
        ]

    async def read_apart(self, number: int) -> list[Entry]:
        return list(self._apart()[number][2])

    async def settle(self, number: int, keep: Sequence[Entry]) -> None:
        copy = self._apart()[number][1]
        self._kept.aside[number] = (copy, list(keep), True)
        if not keep:
            del self._kept.aside[number]

    async def forget(self, numbers: Sequence[int]) -> None:
        apart = self._apart()
        for number in sorted(numbers, reverse=True):
            part, copy, _, _ = apart[number]
            if number < len(self._kept.aside):
                del self._kept.aside[number]
            else:
                part.entries.pop(copy.conversation, None)
                part.copies.pop(copy.conversation, None)

    def _apart(self) -> dict[int, tuple[_Kept, Copy, Sequence[Entry], bool]]:
        """By number: what this part has set apart comes first."""
        found: list[tuple[_Kept, Copy, Sequence[Entry], bool]] = [
            (self._kept, copy, entries, settled) for copy, entries, settled in self._kept.aside
        ]
        for part in self._endpoint.parts:
            if part is not self._kept:
                found += [
                    (part, copy, part.entries.get(copy.conversation, ()), True)
                    for copy in part.copies.values()
                ]
        return dict(enumerate(found))

    def crash(self) -> None:
        self._crashed = True
        self._written.clear()

    async def close(self) -> None:
        if not self._crashed:
            await self.flush()
            self._store.let_go(self._key)
