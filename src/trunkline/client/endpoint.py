"""One endpoint's whole state in this process: copies, outbox, local store, readers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from trunkline.client.outbox import Outbox
from trunkline.client.replica import Replica
from trunkline.client.store import Changes, EndpointStore, Loaded
from trunkline.errors import TrunklineError
from trunkline.model import ConversationId, EndpointId, Entry, Seq, UserId

Report = Callable[[TrunklineError], None]
"""Told what the application cannot await: lost connections, mismatches, refused sends."""


class Reader(Protocol):
    """Takes entries as they become part of a copy."""

    def deliver(self, conversation: ConversationId, entries: Sequence[Entry]) -> None:
        """Entries became part of a copy."""
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
        self.replica = Replica(
            user, loaded.copies, loaded.cursor, deliver=self._deliver, report=report
        )
        self.outbox = Outbox(user, loaded.outbox)
        self.marks: dict[ConversationId, Seq] = {
            copy.conversation: copy.marker for copy in loaded.copies if copy.mark_waits
        }
        self.settled = asyncio.Event()
        self.emptied = asyncio.Event()
        self.failure: TrunklineError | None = None
        self.wake: Callable[[], None] = no_connection
        self._store = store
        self._cursor = loaded.cursor
        if not self.outbox:
            self.emptied.set()

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
        )

    def write(self) -> None:
        """Hands everything new to the local store, as one change."""
        if not self.has_changes:
            return
        copies = self.replica.take_changes()
        posted, settled = self.outbox.take_changes()
        cursor = self.replica.cursor if self._cursor != self.replica.cursor else None
        self._cursor = self.replica.cursor
        self._store.write(
            Changes(copies.dropped, copies.runs, copies.copies, posted, settled, cursor)
        )

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
