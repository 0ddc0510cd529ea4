"""The combining writer of one lane: whatever waits becomes one transaction (DESIGN section 3).

While one batch commits, the next gathers; no timer is needed. A conversation that another
worker holds goes on in a second, patient writer, so that it holds up no other. It stays there as
long as workers meet at it, and before each of its batches one of the other conversations' goes:
what waits meanwhile makes its next batch larger, and takes less of everybody's time.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec
import structlog

from trunkline.core.appending import Contended, Decision
from trunkline.core.batching import draft_bytes
from trunkline.core.unsettled import Unsettled
from trunkline.errors import BatchRefused, Internal, OutcomeUnknown, Overloaded, TrunklineError
from trunkline.model import ConversationId, UserId
from trunkline.ports.clock import Clock
from trunkline.ports.hot import Decide, HotStore
from trunkline.services.fanout import Item
from trunkline.services.leases import Lease
from trunkline.services.metrics import Metrics
from trunkline.services.troubles import Troubles

_log = structlog.get_logger("trunkline.append")
_SETTLE_SECONDS = (0.5, 30.0)
"""First and longest pause before an unknown outcome is asked for, if no draft comes."""
_CONTENDED_SECONDS = 0.1
"""So long after another worker was met at a conversation it is taken to be still there."""

Begin = Callable[[], Awaitable[Lease | None]]
Committed = Callable[[Sequence[Item], Decision, Lease | None], Awaitable[None]]
Refuse = Callable[[Sequence[Item], TrunklineError], None]
Unknown = dict[tuple[ConversationId, UserId], dict[UserId, None]]
"""Who wrote where with an outcome that is not known, and the users whom that named."""


class Bounds(msgspec.Struct, frozen=True):
    """How much a lane takes on; sizes as `core.batching` counts them."""

    queue_drafts: int
    queue_bytes: int
    batch_drafts: int
    batch_bytes: int


class Lane:
    """What goes to one database.

    Attributes:
        batches: batches taken so far; the archiver sees the load by it.
    """

    def __init__(
        self,
        hot: HotStore,
        decide: Decide,
        clock: Clock,
        metrics: Metrics,
        *,
        begin: Begin,
        committed: Committed,
        refuse: Refuse,
        settled: Callable[[Unknown], Awaitable[None]],
        bounds: Bounds,
    ) -> None:
        """`begin` is asked before each commit; `committed` delivers a batch; `settled` hears
        what had an unknown outcome and has none any more.
        """
        self._hot = hot
        self._decide = decide
        self._clock = clock
        self._metrics = metrics
        self._begin = begin
        self._committed = committed
        self._refuse = refuse
        self._settled = settled
        self._bounds = bounds
        self._queued_bytes = 0
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._patient_queue: deque[Item] = deque()
        self._patient_wake = asyncio.Event()
        self._held: Counter[ConversationId] = Counter()
        self._contended_until: dict[ConversationId, float] = {}
        self._quick_busy = False
        self._quick_turn = asyncio.Event()
        self._draining = False
        self._quick_ended = False
        self._unsettled: Unsettled[tuple[ConversationId, UserId]] = Unsettled()
        self._named: Unknown = {}
        self._settle_seconds = _SETTLE_SECONDS[0]
        self._troubles = Troubles(_log, "append_failed")
        self.batches = 0

    @property
    def queued(self) -> int:
        """Drafts that wait for a batch."""
        return len(self._queue) + len(self._patient_queue)

    def submit(self, item: Item) -> None:
        """Queues a draft; raises `Overloaded` when the queue is full."""
        size = draft_bytes(item[0])
        bytes_after = self._queued_bytes + size
        if self.queued >= self._bounds.queue_drafts or (
            self._queued_bytes and bytes_after > self._bounds.queue_bytes
        ):
            raise Overloaded(retry_after_seconds=0.5)
        self._queued_bytes = bytes_after
        self._queue.append(item)
        self._wake.set()

    def drain(self) -> None:
        """`run` returns once what is queued was committed and answered."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Commits batches until drained."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_patient())
            await self._run_quick()
            self._quick_ended = True
            self._patient_wake.set()

    async def _run_quick(self) -> None:
        while True:
            await self._drafts_wait()
            self._wake.clear()
            # One turn of the loop, so that every frame readable now joins the batch.
            await asyncio.sleep(0)
            while self._queue:
                self._quick_busy = True
                if items := self._take():
                    await self._commit(items, wait=False)
                self._quick_busy = False
                self._quick_turn.set()
            if self._draining:
                return

    async def _run_patient(self) -> None:
        while True:
            await self._patient_wake.wait()
            self._patient_wake.clear()
            while self._patient_queue:
                await self._give_way()
                items = self._pop(self._patient_queue)
                self.batches += 1
                await self._commit(items, wait=True)
                self._held -= Counter(draft.conversation for draft, _ in items)
            if self._quick_ended:
                return

    async def _give_way(self) -> None:
        """Lets a batch of the quick writer go first, if it has any."""
        if self._quick_busy or self._queue:
            self._quick_turn.clear()
            await self._quick_turn.wait()

    async def _drafts_wait(self) -> None:
        """Returns once there are drafts; what is unknown is settled meanwhile."""
        while self._unsettled and not self._wake.is_set():
            try:
                async with asyncio.timeout(self._settle_seconds):
                    await self._wake.wait()
            except TimeoutError:
                self._settle_seconds = min(2 * self._settle_seconds, _SETTLE_SECONDS[1])
                await self._commit([], wait=True)
        await self._wake.wait()

    def _take(self) -> list[Item]:
        taken = self._pop(self._queue)
        self._metrics.append_batch.observe(len(taken))
        self.batches += 1
        return self._without_patient(taken)

    def _pop(self, queue: deque[Item]) -> list[Item]:
        """The next batch: so many drafts, and so many bytes unless it is one alone."""
        taken: list[Item] = []
        most, size = self._bounds.batch_drafts, 0
        while queue and len(taken) < most:
            after = size + draft_bytes(queue[0][0])
            if taken and after > self._bounds.batch_bytes:
                break
            size = after
            taken.append(queue.popleft())
        self._queued_bytes -= size
        return taken

    def _without_patient(self, items: list[Item]) -> list[Item]:
        """Those that need not wait behind others of their conversation, which are handed on."""
        if patient := self._patient_conversations():
            held = [item for item in items if item[0].conversation in patient]
            if held:
                self._hand_on(held)
                return [item for item in items if item[0].conversation not in patient]
        return items

    def _patient_conversations(self) -> Collection[ConversationId]:
        """Those of which drafts wait for the patient writer, or whose next would have to."""
        if not self._contended_until:
            return self._held
        now = self._clock.monotonic()
        self._contended_until = {
            name: until for name, until in self._contended_until.items() if until > now
        }
        return self._held.keys() | self._contended_until.keys()

    def _hand_on(self, items: Sequence[Item]) -> None:
        """Gives drafts to the patient writer; later ones of their conversations follow them."""
        self._held.update(draft.conversation for draft, _ in items)
        self._patient_queue.extend(items)
        self._queued_bytes += sum(draft_bytes(draft) for draft, _ in items)
        self._metrics.appends_contended.inc(len(items))
        self._patient_wake.set()

    async def _commit(self, items: list[Item], *, wait: bool) -> None:
        started = self._clock.monotonic()
        before = self._unsettled.now()
        try:
            lease = await self._begin()
            decision = await self._hot.append(
                [draft for draft, _ in items], self._decide, wait=wait
            )
        except BatchRefused as error:
            _log.warning("append_failed", code=error.code, drafts=len(items), detail=error.detail)
            await self._refused(items, wait=wait)
            return
        except TrunklineError as error:
            self._troubles.failed("", error, drafts=len(items))
            if isinstance(error, OutcomeUnknown):
                self._remember_unknown(items)
            self._refuse(items, error)
            return
        except Exception:  # noqa: BLE001 - a fault of ours: logged, answered, nothing acked
            _log.exception("append_broke", drafts=len(items))
            self._remember_unknown(items)
            await self._refused(items, wait=wait)
            return
        self._troubles.passed("")
        self._metrics.append_seconds.observe(self._clock.monotonic() - started)
        if not wait:
            items, decision = self._without_contended(items, decision)
        if before:
            await self._settle(before)
        if items:
            try:
                await self._committed(items, decision, lease)
            except OutcomeUnknown as error:
                _log.warning("commit_not_shown", drafts=len(items), detail=error.detail)
                self._remember_unknown(items)
                self._refuse(items, error)

    async def _refused(self, items: list[Item], *, wait: bool) -> None:
        """What one of the drafts holds may be why: each half is tried without the other, down
        to that one.
        """
        if len(items) <= 1:
            self._refuse(items, Internal())
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            # Of the first half, some may have been handed on meanwhile.
            if part := half if wait else self._without_patient(half):
                await self._commit(part, wait=wait)

    async def _settle(self, before: Mapping[tuple[ConversationId, UserId], int]) -> None:
        """What was unknown when a commit began that went through is known to the store now."""
        self._settle_seconds = _SETTLE_SECONDS[0]
        if settled := self._unsettled.settle(before):
            await self._settled({key: self._named.pop(key) for key in settled})

    def _without_contended(
        self, items: list[Item], decision: Decision
    ) -> tuple[list[Item], Decision]:
        paired = list(zip(items, decision.outcomes, strict=True))
        contended = [item for item, outcome in paired if isinstance(outcome, Contended)]
        if not contended:
            return items, decision
        until = self._clock.monotonic() + _CONTENDED_SECONDS
        for draft, _ in contended:
            self._contended_until[draft.conversation] = until
        self._hand_on(contended)
        decided = [pair for pair in paired if not isinstance(pair[1], Contended)]
        return (
            [item for item, _ in decided],
            Decision([outcome for _, outcome in decided], decision.writes),
        )

    def _remember_unknown(self, items: Sequence[Item]) -> None:
        for draft, _ in items:
            named = self._named.setdefault((draft.conversation, draft.sender), {})
            named.update(dict.fromkeys(draft.users))
        self._unsettled.add((draft.conversation, draft.sender) for draft, _ in items)
