"""The combining writer: whatever waits becomes one transaction (DESIGN section 3, steps 2 to 5).

While one batch commits, the next gathers; no timer is needed.
"""

import asyncio
from collections import deque

import structlog

from trunkline.core.appending import AppendPlanner
from trunkline.errors import (
    Internal,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    TrunklineError,
)
from trunkline.model import ConversationId, Draft, UserId
from trunkline.ports.clock import Clock
from trunkline.ports.hot import HotStore
from trunkline.services.crossing import AfterCommit
from trunkline.services.fanout import FanOut, Item
from trunkline.services.metrics import Metrics
from trunkline.services.registry import Connection

_log = structlog.get_logger("trunkline.append")
_SETTLE_SECONDS = (0.5, 30.0)
"""First and longest pause before an unknown outcome is asked for, if no draft comes."""


class AppendService:
    """Takes drafts from connections; acks and pushes only what is committed (I5)."""

    def __init__(
        self,
        hot: HotStore,
        planner: AppendPlanner,
        fanout: FanOut,
        after: AfterCommit,
        clock: Clock,
        metrics: Metrics,
        *,
        queue_drafts: int,
        batch_drafts: int,
    ) -> None:
        self._hot = hot
        self._decide = planner.decide
        self._fanout = fanout
        self._after = after
        self._clock = clock
        self._metrics = metrics
        self._queue_drafts = queue_drafts
        self._batch_drafts = batch_drafts
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._draining = False
        self._unknown: dict[tuple[ConversationId, UserId], None] = {}
        self._settle_seconds = _SETTLE_SECONDS[0]
        self.batches = 0
        """Batches taken so far; the archiver sees the load by it."""

    def submit(self, draft: Draft, connection: Connection) -> None:
        """Queues a draft; its connection is answered after the commit.

        Raises `Overloaded` when the queue is full, `ShuttingDown` while draining.
        """
        if self._draining:
            raise ShuttingDown
        queue = self._queue
        if len(queue) >= self._queue_drafts:
            raise Overloaded(retry_after_seconds=0.5)
        queue.append((draft, connection))
        self._wake.set()

    def drain(self) -> None:
        """No more drafts; `run` returns once what is queued was committed and answered."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Commits batches until drained."""
        while True:
            await self._drafts_wait()
            self._wake.clear()
            # One turn of the loop, so that every frame readable now joins the batch.
            await asyncio.sleep(0)
            while self._queue:
                await self._commit(self._take())
            if self._draining:
                return

    async def _drafts_wait(self) -> None:
        """Returns once there are drafts; what is unknown is settled meanwhile."""
        while self._unknown and not self._wake.is_set():
            try:
                async with asyncio.timeout(self._settle_seconds):
                    await self._wake.wait()
            except TimeoutError:
                self._settle_seconds = min(2 * self._settle_seconds, _SETTLE_SECONDS[1])
                await self._commit([])
        await self._wake.wait()

    def _take(self) -> list[Item]:
        queue = self._queue
        taken = [queue.popleft() for _ in range(min(len(queue), self._batch_drafts))]
        self._metrics.append_queue.set(len(queue))
        self._metrics.append_batch.observe(len(taken))
        self.batches += 1
        return taken

    async def _commit(self, items: list[Item]) -> None:
        started = self._clock.monotonic()
        try:
            decision = await self._hot.append([draft for draft, _ in items], self._decide)
        except TrunklineError as error:
            _log.warning("append_failed", code=error.code, drafts=len(items), detail=error.detail)
            if isinstance(error, OutcomeUnknown):
                self._remember_unknown(items)
            self._fanout.refuse(items, error)
            return
        except Exception:  # noqa: BLE001 - a fault of ours: logged, answered, nothing acked
            _log.exception("append_broke", drafts=len(items))
            self._remember_unknown(items)
            self._fanout.refuse(items, Internal())
            return
        self._metrics.append_seconds.observe(self._clock.monotonic() - started)
        self._metrics.entries.inc(sum(len(write.entries) for write in decision.writes))
        others = await self._after.append(items, decision)
        if self._unknown:
            await self._regroup()
        self._after.deliver(items, decision, others)

    def _remember_unknown(self, items: list[Item]) -> None:
        for draft, _ in items:
            self._unknown[draft.conversation, draft.sender] = None

    async def _regroup(self) -> None:
        """What an unknown outcome may have stored was pushed to nobody, and may have changed
        who may be pushed to: since a commit went through, the store tells (DESIGN section 3).
        """
        unknown, self._unknown = self._unknown, {}
        self._settle_seconds = _SETTLE_SECONDS[0]
        try:
            for conversation, sender in unknown:
                for row, _ in (await self._hot.views(sender, (conversation,))).values():
                    self._fanout.regroup(row, await self._hot.members(row.key))
        except TrunklineError as error:
            _log.warning("regroup_failed", code=error.code, detail=error.detail)
            self._fanout.close_all()
