"""Archive tasks: conversations whose head is beyond what is archived, leased in memory."""

import asyncio
from collections.abc import Sequence

import msgspec

from trunkline.adapters.sqlite.hot import SqliteHotStore
from trunkline.adapters.sqlite.records import Archived, Record
from trunkline.adapters.sqlite.state import State
from trunkline.model import ConversationKey, Seq
from trunkline.ports.clock import Clock
from trunkline.ports.tasks import ArchiveTask, Waiting


class _Lease(msgspec.Struct, frozen=True, gc=False):
    token: int
    until: float


class SqliteTaskStore:
    """A `ports.tasks.TaskStore`. One process has the store, so leases may end with it.

    What waits is derived from the rows: nothing that was appended is ever forgotten.
    """

    def __init__(self, state: State, hot: SqliteHotStore, clock: Clock) -> None:
        self._state = state
        self._hot = hot
        self._clock = clock
        self._leases: dict[ConversationKey, _Lease] = {}
        self._not_before: dict[ConversationKey, float] = {}
        self._attempts: dict[ConversationKey, int] = {}
        # A task of an earlier process must not pass for one of this.
        self._token = clock.now_ms() << 20
        self._loading = asyncio.Lock()
        self._loaded = False

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        """Up to `limit` tasks that nobody holds, longest waiting first."""
        await self._load()
        now = self._clock.monotonic()
        free: list[ConversationKey] = []
        for key in self._state.unarchived:
            if len(free) >= limit:
                break
            lease = self._leases.get(key)
            if (lease is None or lease.until <= now) and self._not_before.get(key, now) <= now:
                self._token += 1
                self._leases[key] = _Lease(self._token, now + lease_seconds)
                free.append(key)
        tokens = {key: self._leases[key].token for key in free}
        rows = await self._hot.rows(free)
        return [ArchiveTask(row, tokens[row.key], self._attempts.get(row.key, 0)) for row in rows]

    async def archived(self, progress: Sequence[tuple[ArchiveTask, Seq]]) -> None:
        """Raises archived_up_to (I10), of those whose lease still is the task's."""
        slots = await self._hot.turn_with([task.conversation.key for task, _ in progress])
        records: list[Record] = []
        for task, up_to_inclusive in progress:
            slot = slots.get(task.conversation.key)
            if slot is None or not self._holds(task):
                continue
            up_to = Seq(min(up_to_inclusive, slot.conversation.head))
            if up_to > slot.conversation.archived_up_to:
                records.append(Archived(slot.conversation.key, up_to))
        await self._hot.commit(records)

    async def done(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases; what was appended meanwhile waits anew."""
        slots = await self._hot.turn_with([task.conversation.key for task in tasks])
        self._hot.give_turn_back()
        for task in filter(self._holds, tasks):
            key = task.conversation.key
            slot = slots.get(key)
            if slot is None:
                continue
            self._end(key)
            self._state.unarchived.pop(key, None)
            if slot.conversation.to_be_archived:
                self._state.unarchived[key] = self._clock.now_ms()

    async def failed(self, task: ArchiveTask, code: str, again_after_seconds: float) -> None:
        """Ends the lease; the task waits before it is leased again."""
        if not self._holds(task):
            return
        key = task.conversation.key
        self._end(key)
        self._attempts[key] = task.attempts + 1
        self._not_before[key] = self._clock.monotonic() + again_after_seconds

    async def give_back(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases as if they had not been."""
        for task in filter(self._holds, tasks):
            del self._leases[task.conversation.key]

    async def waiting(self) -> Waiting:
        """What is not yet fully archived."""
        await self._load()
        now_ms = self._clock.now_ms()
        since_ms = next(iter(self._state.unarchived.values()), now_ms)
        return Waiting(len(self._state.unarchived), max(0, now_ms - since_ms) / 1000)

    def _holds(self, task: ArchiveTask) -> bool:
        lease = self._leases.get(task.conversation.key)
        return lease is not None and lease.token == task.token

    def _end(self, key: ConversationKey) -> None:
        del self._leases[key]
        self._attempts.pop(key, None)
        self._not_before.pop(key, None)

    async def _load(self) -> None:
        """Finds, at the first question, what waited when the store was opened."""
        async with self._loading:
            if self._loaded:
                return
            before = await self._hot.unarchived()
            since = dict(self._state.unarchived)
            self._state.unarchived.clear()
            self._state.unarchived.update({k: ms for k, ms in before.items() if k not in since})
            self._state.unarchived.update(since)
            self._loaded = True
