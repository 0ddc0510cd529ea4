"""Hot store and archive tasks in memory, for tests and simulation: one state, two ports.

The same promises as of any hot store, as far as the journal keeps its own; without one
they end with the process. Client message ids are kept for good.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from trunkline.adapters.memory.journal import Journal, JournaledWrites
from trunkline.adapters.memory.records import (
    HOT_DECODER,
    Appended,
    Archived,
    HotRecord,
    Leased,
    Recorded,
    Trimmed,
    WriteRow,
)
from trunkline.adapters.memory.state import HotState
from trunkline.core.appending import Decision
from trunkline.errors import StorageUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)
from trunkline.ports.clock import Clock
from trunkline.ports.head_changes import HeadChanges
from trunkline.ports.hot import Decide
from trunkline.ports.tasks import ArchiveTask, Waiting


class MemoryHotStore:
    """A `ports.hot.HotStore` and `ports.heads.Heads`.

    Attributes:
        tasks: the `TaskStore` over its state.
        head_changes: which heads moved last, a `ports.head_changes.HeadChanges`.
    """

    def __init__(self, clock: Clock, journal: Journal | None = None) -> None:
        state = HotState()
        writes: JournaledWrites[HotRecord] = JournaledWrites(
            journal, HOT_DECODER, clear=state.clear, apply=state.apply
        )
        self._state = state
        self._writes = writes
        self._clock = clock
        self.tasks = MemoryTaskStore(state, writes, clock)
        self.head_changes: HeadChanges = state.head_log

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """Appends a batch as one transaction, see the port."""
        async with self._writes as writes:
            decision = decide(batch, self._state.append_state(batch))
            for write in decision.writes:
                key = write.conversation.key
                if write.created and key in self._state.ids:
                    raise StorageUnavailable("A new conversation drew a key that is taken.")
            if decision.writes:
                rows = [WriteRow.of(write) for write in decision.writes]
                await writes.commit(Appended(rows, self._clock.now_ms()))
            return decision

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """Row and the user's member row of those conversations that know the user."""
        return self._state.views(user, ids)

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """All members, present and gone."""
        conversation = self._state.row(key)
        return {} if conversation is None else dict(self._state.members[conversation.id])

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of after+1..up_to_inclusive that was not trimmed."""
        return self._state.read(key, after, up_to_inclusive)

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        """Rows of those conversations that exist, in the order of `keys`."""
        found = (self._state.row(key) for key in keys)
        return [row for row in found if row is not None]

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """The user's list with version > `changed_after`, oldest change first."""
        lines = self._state.lists.get(user, {}).values()
        changed = [line for line in lines if line.version > changed_after]
        return sorted(changed, key=lambda line: line.version)

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """Moves markers and offsets forward; a lower value changes nothing (I9)."""
        if not markers and not offsets:
            return
        async with self._writes as writes:
            await writes.commit(Recorded(list(markers), list(offsets)))

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """The read offsets that are durable for one endpoint."""
        return dict(self._state.offsets.get((user, endpoint), {}))

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """Drops entries 1..seq of each conversation; never beyond what is archived (I10)."""
        async with self._writes as writes:
            for key, up_to_inclusive in trims:
                await writes.commit(Trimmed(key, up_to_inclusive))


class _Lease(msgspec.Struct):
    token: int
    until: float


class MemoryTaskStore:
    """A `ports.tasks.TaskStore`. Leases end with the process, their tokens never come again."""

    def __init__(self, state: HotState, writes: JournaledWrites[HotRecord], clock: Clock) -> None:
        self._state = state
        self._writes = writes
        self._clock = clock
        self._leases: dict[ConversationKey, _Lease] = {}
        self._not_before: dict[ConversationKey, float] = {}
        self._attempts: dict[ConversationKey, int] = {}

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        """Up to `limit` tasks that nobody holds, longest waiting first."""
        async with self._writes as writes:
            now = self._clock.monotonic()
            free = [key for key in self._state.unarchived if self._is_free(key, now)][:limit]
            if not free:
                return ()
            first = self._state.last_token + 1
            await writes.commit(Leased(self._state.last_token + len(free)))
            tasks = []
            for token, key in enumerate(free, first):
                self._leases[key] = _Lease(token, now + lease_seconds)
                row = self._state.row(key)
                assert row is not None
                tasks.append(ArchiveTask(row, token, self._attempts.get(key, 0)))
            return tasks

    async def archived(self, progress: Sequence[tuple[ArchiveTask, Seq]]) -> None:
        """Raises archived_up_to (I10), of those whose lease still is the task's."""
        async with self._writes as writes:
            for task, up_to_inclusive in progress:
                if self._holds(task):
                    await writes.commit(Archived(task.conversation.key, up_to_inclusive))

    async def done(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases; what was appended meanwhile waits anew."""
        async with self._writes:
            for task in filter(self._holds, tasks):
                key = task.conversation.key
                del self._leases[key]
                self._attempts.pop(key, None)
                self._not_before.pop(key, None)
                self._state.unarchived.pop(key, None)
                if self._is_waiting(key):
                    self._state.unarchived[key] = self._clock.now_ms()

    async def failed(self, task: ArchiveTask, code: str, again_after_seconds: float) -> None:
        """Ends the lease; the task waits before it is leased again."""
        async with self._writes:
            if not self._holds(task):
                return
            key = task.conversation.key
            del self._leases[key]
            self._attempts[key] = task.attempts + 1
            self._not_before[key] = self._clock.monotonic() + again_after_seconds

    async def give_back(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases as if they had not been."""
        async with self._writes:
            for task in filter(self._holds, tasks):
                del self._leases[task.conversation.key]

    async def waiting(self) -> Waiting:
        """What is not yet fully archived."""
        unarchived = self._state.unarchived
        since_ms = [since for key, since in unarchived.items() if self._is_waiting(key)]
        now_ms = self._clock.now_ms()
        return Waiting(len(since_ms), max(0, now_ms - min(since_ms, default=now_ms)) / 1000)

    def _is_waiting(self, key: ConversationKey) -> bool:
        row = self._state.row(key)
        return row is not None and row.to_be_archived

    def _is_free(self, key: ConversationKey, now: float) -> bool:
        lease = self._leases.get(key)
        return (
            (lease is None or lease.until <= now)
            and self._not_before.get(key, now) <= now
            and self._is_waiting(key)
        )

    def _holds(self, task: ArchiveTask) -> bool:
        lease = self._leases.get(task.conversation.key)
        return lease is not None and lease.token == task.token
