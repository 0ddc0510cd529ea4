"""One endpoint's whole state in this process: copies, outbox, local store, readers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from trunkline.client.outbox import Outbox
from trunkline.client.replica import Replica
from trunkline.client.store import Apart, EndpointStore, Loaded, Met
from trunkline.errors import StoreReplaced, StoreRestored, TrunklineError
from trunkline.model import ConversationId, EndpointId, Entry, Seq, StoreLife, UserId

Report = Callable[[TrunklineError], None]
"""Told what the application cannot await: lost connections, mismatches, refused sends."""


class Reader(Protocol):
    """Takes entries as they become part of a copy."""

    def deliver(self, conversation: ConversationId, entries: Sequence[Entry]) -> None:
        """Entries became part of a copy."""
        ...

    def restart(self) -> None:
        """The endpoint's copies are others from now on."""
        ...

    def healed(self, conversation: ConversationId, first: Seq | None) -> None:
        """A copy is whole again; from `first` on it is another one than was read."""
        ...

    def end(self) -> None:
        """The client failed."""
        ...


class Endpoint:
    """What outlives a connection.

    Attributes:
        settled: set while nothing is known that is still to be synced or pulled.
        wake: called when the application changed something a connection should act upon.
    """

    def __init__(
        self,
        user: UserId,
        endpoint: EndpointId,
        store: EndpointStore,
        loaded: Loaded,
        report: Report,
    ) -> None:
        self.user = user
        self.endpoint = endpoint
        self.report = report
        self.readers: list[Reader] = []
        self.replica: Replica
        self.outbox: Outbox
        self.marks: dict[ConversationId, Seq]
        self.settled = asyncio.Event()
        self.emptied = asyncio.Event()
        self.failure: TrunklineError | None = None
        self.wake: Callable[[], None] = no_connection
        self._store = store
        self._cursor = 0
        self._met: Met | None = None
        self._met_changed = False
        self._meeting: Met | None = None
        self._take(loaded, successor=False)

    def _rewind(self, conversation: ConversationId, first: Seq | None) -> None:
        for reader in self.readers:
            reader.healed(conversation, first)

    def _take(self, loaded: Loaded, *, successor: bool) -> None:
        """The copies and the outbox are these. `successor`: of a store that is younger than the
        endpoint's last visit to the one before: all that it holds came while it was away.
        """
        self.replica = Replica(
            self.user,
            loaded.copies,
            loaded.cursor,
            deliver=self._deliver,
            rewind=self._rewind,
            report=self.report,
            all_is_news=successor,
            unsettled=loaded.unsettled,
        )
        self.outbox = Outbox(self.user, loaded.outbox)
        self.marks = {copy.conversation: copy.marker for copy in loaded.copies if copy.mark_waits}
        self._cursor = loaded.cursor
        self._met = loaded.met
        self._meeting = None
        if self.outbox:
            self.emptied.clear()
        else:
            self.emptied.set()

    async def meet(self, life: StoreLife | None, time_ms: int) -> None:
        """The server says which store it has, and what its clock shows.

        Another one than before: from now on the endpoint's copies and outbox are those that it
        has of that store, none at first. What it holds of the one before stays where it is.
        """
        if life is None:
            return
        before = self._met
        if before is not None and before.life.id != life.id:
            await self._move(before, life)
        self._meeting = Met(life, time_ms)
        self.replica.doubts.can_ask = True
        self._compare_lives(life)

    def is_of(self, life: StoreLife | None) -> bool:
        """Takes what a later answer says of the store; False if it began another life."""
        meeting = self._meeting or self._met
        if life is None or meeting is None or meeting.life.mark == life.mark:
            return True
        self._meeting = Met(life, meeting.time_ms)
        if self.replica.doubts.cover_all:
            return True  # this endpoint was what made it begin
        self._compare_lives(life)
        return False

    def _compare_lives(self, life: StoreLife) -> None:
        """In another life than its copies are of, the store may have lost some of them."""
        met = self._met
        if met is not None and met.life.mark == life.mark:
            return
        if met is not None and met.life.id == life.id:
            self.replica.counters.stores_restored += 1
            self.report(
                StoreRestored(
                    f"The store is in generation {life.generation} ({life.mark}), this endpoint's "
                    f"copies are of {met.life.generation} ({met.life.mark}): it may have lost "
                    "what it has shown, all copies are compared with it."
                )
            )
        if self.replica.held:
            self.replica.doubt()

    def doubt(self) -> None:
        """The server has less than this endpoint: what it lost it may not know itself."""
        if self._meeting is not None and not self.replica.doubts.are_open:
            self.replica.doubt()

    @property
    def mark(self) -> str:
        """Of the life that the copies are of; empty: not known."""
        return "" if self._met is None else self._met.life.mark

    def healed(self, conversation: ConversationId, lost: Sequence[Entry]) -> None:
        """A copy was compared with what was set apart of it; `lost` the store does not have."""
        self.replica.healed(conversation, lost)

    async def settle(self, number: int, keep: Sequence[Entry]) -> None:
        """Of something set apart only this is kept."""
        await self._store.settle(number, keep)

    async def _move(self, before: Met, life: StoreLife) -> None:
        part = await self._store.part_of(life.id)
        loaded = await part.load()
        self.write()
        unsent, counters = self.outbox, self.replica.counters
        self._store = part
        self._take(loaded, successor=0 < before.time_ms < life.made_ms)
        self.replica.counters = counters
        counters.stores_replaced += 1
        self.settled.clear()
        replaced = StoreReplaced(
            f"The server has store {life.id}, this endpoint's copies are of {before.life.id}: "
            f"they are set apart, and {len(unsent)} unsent messages wait for that store."
        )
        self.report(replaced)
        unsent.fail(replaced)
        for reader in self.readers:
            reader.restart()

    async def apart(self) -> list[Apart]:
        """What is set apart."""
        self.write()
        return await self._store.apart()

    async def read_apart(self, number: int) -> list[Entry]:
        """The entries of something set apart."""
        return await self._store.read_apart(number)

    async def forget(self, numbers: Sequence[int]) -> None:
        """Deletes what is set apart."""
        await self._store.forget(numbers)

    def _deliver(self, conversation: ConversationId, entries: Sequence[Entry]) -> None:
        for reader in self.readers:
            reader.deliver(conversation, entries)

    @property
    def has_changes(self) -> bool:
        """Whether the local store lacks something."""
        return (
            self.replica.has_changes
            or self.outbox.has_changes
            or self._cursor != self.replica.cursor
            or self._met_changed
        )

    def write(self) -> None:
        """Hands everything new to the local store, as one change."""
        self._note_met()
        if not self.has_changes:
            return
        copies = self.replica.take_changes()
        posted, settled = self.outbox.take_changes()
        cursor = self.replica.cursor if self._cursor != self.replica.cursor else None
        self._cursor = self.replica.cursor
        met = self._met if self._met_changed else None
        self._met_changed = False
        self._store.write(
            msgspec.structs.replace(copies, posted=posted, settled=settled, cursor=cursor, met=met)
        )

    def _note_met(self) -> None:
        """The copies are of the life that was met last, once all were compared with it."""
        if self._meeting is not None and not self.replica.doubts.are_open:
            self._met_changed = self._met_changed or self._meeting != self._met
            self._met = self._meeting

    async def save(self) -> None:
        """Returns once everything up to now is durable in the local store."""
        self.write()
        await self._store.flush()

    async def read(
        self, conversation: ConversationId, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry]:
        """Entries of a copy, as far as it goes."""
        self.write()
        return await self._store.read(conversation, after, up_to_inclusive)

    async def close(self) -> None:
        """Saves and lets go of the local store."""
        self.replica.note_proofs()
        self.write()
        await self._store.close()

    def fail(self, error: TrunklineError) -> None:
        """Nothing more comes in this run: everyone who waits is told why."""
        if self.failure is None:
            self.failure = error
            self.outbox.fail(error)
            self.settled.set()
            self.emptied.set()
            for reader in self.readers:
                reader.end()

    def raise_failure(self) -> None:
        """Raises what ended the client, if anything did."""
        if self.failure is not None:
            raise self.failure


def no_connection() -> None:
    """No connection is there to be woken up."""
