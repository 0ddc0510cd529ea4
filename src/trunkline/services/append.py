"""Takes drafts, and answers them once they are committed (DESIGN section 3, steps 2 to 5)."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from trunkline.core.appending import AppendPlanner, Decision
from trunkline.errors import ShuttingDown, TrunklineError
from trunkline.model import ConversationId, Draft
from trunkline.ports.clock import Clock
from trunkline.ports.hot import HotStore
from trunkline.services.crossing import AfterCommit
from trunkline.services.fanout import FanOut, Item
from trunkline.services.lane import Bounds, Lane, Unknown
from trunkline.services.leases import Lease
from trunkline.services.metrics import Metrics
from trunkline.services.registry import Connection

_log = structlog.get_logger("trunkline.append")


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
        lanes: int,
        lane_of: Callable[[ConversationId], int],
        bounds: Bounds,
    ) -> None:
        """`lanes` databases are written beside each other; each has a queue of its own."""
        self._hot = hot
        self._fanout = fanout
        self._after = after
        self._metrics = metrics
        self._lane_of = lane_of
        self._draining = False
        self._lanes = [
            Lane(
                hot, planner.decide, clock, metrics, begin=partial(after.begin, number),
                committed=self._committed, refuse=fanout.refuse, settled=self._regroup,
                bounds=bounds,
            )
            for number in range(lanes)
        ]  # fmt: skip
        metrics.append_queue.set_function(lambda: sum(lane.queued for lane in self._lanes))

    @property
    def batches(self) -> int:
        """Batches taken so far; the archiver sees the load by it."""
        return sum(lane.batches for lane in self._lanes)

    def submit(self, draft: Draft, connection: Connection) -> None:
        """Queues a draft; its connection is answered after the commit.

        Raises `Overloaded` when the queue is full, `ShuttingDown` while draining.
        """
        if self._draining:
            raise ShuttingDown
        self._lanes[self._lane_of(draft.conversation)].submit((draft, connection))

    def drain(self) -> None:
        """No more drafts; `run` returns once what is queued was committed and answered."""
        self._draining = True
        for lane in self._lanes:
            lane.drain()

    async def run(self) -> None:
        """Commits batches until drained."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())

    async def _committed(
        self, items: Sequence[Item], decision: Decision, lease: Lease | None
    ) -> None:
        self._metrics.entries.inc(sum(len(write.entries) for write in decision.writes))
        shown, others = await self._after.append(items, decision, lease)
        self._after.deliver(items, shown, others)

    async def _regroup(self, unknown: Unknown) -> None:
        """What an unknown outcome may have stored was pushed to nobody, and may have changed
        who may be pushed to: since a commit went through, the store tells (DESIGN section 3).
        Who was gone before that learns nothing of it (I13).
        """
        try:
            for (conversation, sender), named in unknown.items():
                for row, _ in (await self._hot.views(sender, (conversation,))).values():
                    members = await self._hot.members(row.key)
                    self._fanout.regroup(
                        row,
                        {
                            user: member
                            for user, member in members.items()
                            if not member.left_at or user in named
                        },
                    )
        except TrunklineError as error:
            _log.warning("regroup_failed", code=error.code, detail=error.detail)
            self._fanout.close_all()
