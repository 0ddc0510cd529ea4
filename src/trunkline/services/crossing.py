"""What happens after a commit: the cached tier, then the senders, the watchers, the other workers.

`Alone` is a worker that shares its tiers with nobody; `Crossing` is one of many.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Protocol

import msgspec
import structlog

from trunkline.core.appending import ConversationWrite, Decision, Known, Refused
from trunkline.core.lanes import Lanes
from trunkline.core.packets import Note, Told
from trunkline.errors import OutcomeUnknown, StorageUnavailable, TierUnavailable, TrunklineError
from trunkline.model import (
    NO_SEQ,
    Conversation,
    ConversationId,
    Member,
    Seq,
    UserConversation,
    UserId,
    WorkerId,
)
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.ports.clock import Clock
from trunkline.ports.generations import Generations
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.services.fanout import FanOut, Item
from trunkline.services.inbox import Inbox
from trunkline.services.leases import Lease, Leases
from trunkline.services.memberships import Memberships
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import paced
from trunkline.services.publishing import Publisher
from trunkline.services.refusals import Refusals
from trunkline.services.registry import Connection, Registry
from trunkline.services.repairs import Repairs
from trunkline.services.sharing import NOBODY, Others, SharedFanOut
from trunkline.services.troubles import Troubles
from trunkline.services.turns import Turns
from trunkline.services.watching import Watching

_log = structlog.get_logger("trunkline.crossing")


class Cluster(msgspec.Struct, frozen=True):
    """What makes a worker one of many: who it is, and how it reaches the others."""

    worker: WorkerId
    bus: Bus
    heads: Heads
    cached_heads: CachedHeads
    generations: Generations


class AfterCommit(Protocol):
    """The two steps after a commit (DESIGN section 3, steps 4 to 6)."""

    async def begin(self, lane: int) -> Lease | None:
        """What the commit that follows needs to be acknowledged; raises `StorageUnavailable`."""
        ...

    async def append(
        self, items: Sequence[Item], decision: Decision, lease: Lease | None
    ) -> tuple[Decision, Others]:
        """Brings the cached tier up to date; returns which other workers watch.

        From then on the commit may be acknowledged, as far as the decision that is returned
        says so: it refuses what nobody would find. Raises `OutcomeUnknown` if none of it may.
        """
        ...

    def deliver(self, items: Sequence[Item], decision: Decision, others: Others) -> None:
        """Answers the senders, then pushes."""
        ...


class Alone:
    """Nobody else watches: no packet, no number, no beat."""

    def __init__(self, cached: CachedTier, fanout: FanOut) -> None:
        self._cached = cached
        self._fanout = fanout

    async def begin(self, lane: int) -> None:
        """Nobody else believes anything."""

    async def append(
        self, items: Sequence[Item], decision: Decision, lease: Lease | None
    ) -> tuple[Decision, Others]:
        """Brings the cached tier up to date."""
        return decision, await self._cached.append(decision.writes)

    def deliver(self, items: Sequence[Item], decision: Decision, others: Others) -> None:
        """Answers the senders, then pushes."""
        self._fanout.deliver(items, decision)


class Crossing:
    """One worker of many, put together.

    Attributes:
        leases: what it may believe of the cached heads.
    """

    def __init__(
        self,
        cluster: Cluster,
        hot: HotStore,
        cached: CachedTier,
        sealer: Sealer,
        clock: Clock,
        registry: Registry,
        metrics: Metrics,
        refusals: Refusals,
        random_bits: Callable[[int], int],
        *,
        lanes: Lanes,
        sweep_seconds: float,
    ) -> None:
        worker, bus, heads = cluster.worker, cluster.bus, cluster.heads
        self._hot = hot
        self._cached = cached
        self.leases = Leases(
            cluster.generations, cluster.cached_heads, clock, random_bits, metrics,
            lanes=lanes.count,
        )  # fmt: skip
        self._metrics = metrics
        self._registry = registry
        self._lanes = lanes
        self._troubles = Troubles(_log, "cached_append_failed")
        self._watching = Watching(cached, bus, registry)
        self._memberships = Memberships(hot, heads, registry, self._watching, metrics, lanes)
        self._publisher = Publisher(
            bus, cached, sealer.packet_cipher(worker), worker, clock, metrics
        )
        self.fanout = SharedFanOut(registry, metrics, refusals, self._memberships, self._publisher)
        self._repairs = Repairs(
            hot, heads, cached, registry, self._watching, self._memberships, self._publisher,
            metrics, lanes, sweep_seconds=sweep_seconds,
        )  # fmt: skip
        self._inbox = Inbox(
            bus, sealer.packet_cipher, worker, registry, self.fanout, self._memberships,
            self._repairs, metrics,
        )  # fmt: skip

    async def run(self) -> None:
        """Receives, publishes and repairs until closed; what is queued then is published."""
        async with asyncio.TaskGroup() as group:
            parts = (
                self._inbox, self.leases, self._memberships, self._repairs, self._watching,
            )  # fmt: skip
            tasks = [group.create_task(part.run()) for part in parts]
            await self._publisher.run()
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Nothing more is committed here; `run` publishes the rest and returns."""
        self._publisher.close()

    # --- after a commit -------------------------------------------------------------------

    async def begin(self, lane: int) -> Lease:
        """The lease under which the next commit is made; raises `StorageUnavailable`."""
        return await self.leases.of(lane)

    async def append(
        self, items: Sequence[Item], decision: Decision, lease: Lease | None
    ) -> tuple[Decision, Others]:
        """Brings the cached tier up to date; returns which other workers watch.

        If the tier does not answer, nobody may believe its heads before the acks go out; those
        who watch are told later. A resend whose conversation cannot be read is refused, with
        `OutcomeUnknown`. Raises that, too.
        """
        assert lease is not None
        decision, resent = await self._resent(items, decision)
        writes = [*decision.writes, *resent]
        others: Others = NOBODY
        taken = True
        try:
            others = await self._cached.append(writes, lease.generation.stamp)
        except TierUnavailable as error:
            self._metrics.cached_append_failures.inc()
            self._troubles.failed("", error, writes=len(writes))
            self._repairs.unpublished(write.conversation.key for write in writes)
            taken = False
        else:
            self._troubles.passed("")
        await self.leases.settle(lease, taken=taken)
        for write in resent:
            told = Told.of(write.conversation)
            self._repairs.told(told)
            self._publisher.tell(told, others.get(told.key, ()))
        return decision, others

    def deliver(self, items: Sequence[Item], decision: Decision, others: Others) -> None:
        """Answers the senders, then pushes, here and to the other workers' inboxes."""
        self.fanout.deliver_and_publish(items, decision, others)

    async def _resent(
        self, items: Sequence[Item], decision: Decision
    ) -> tuple[Decision, Sequence[ConversationWrite]]:
        """Heads of what was resent: whoever committed it may have died before it told anybody
        (DESIGN section 3, step 6). What is not found is refused, since no sync would find it.
        """
        asked: dict[UserId, dict[ConversationId, Seq]] = {}
        shown = {write.conversation.id for write in decision.writes}
        for (draft, _), outcome in zip(items, decision.outcomes, strict=True):
            if isinstance(outcome, Known) and draft.conversation not in shown:
                seqs = asked.setdefault(draft.sender, {})
                seqs[draft.conversation] = max(outcome.seq, seqs.get(draft.conversation, NO_SEQ))
        if not asked:
            return decision, ()
        found: dict[ConversationId, Conversation] = {}
        views = await asyncio.gather(
            *(self._heads_of(sender, seqs) for sender, seqs in asked.items())
        )
        for row in chain.from_iterable(views):
            other = found.get(row.id)
            if other is None or other.head < row.head:
                found[row.id] = row
        shown |= found.keys()
        outcomes = [
            Refused(OutcomeUnknown())
            if isinstance(outcome, Known) and draft.conversation not in shown
            else outcome
            for (draft, _), outcome in zip(items, decision.outcomes, strict=True)
        ]
        heads = [ConversationWrite.of_head(row) for row in found.values()]
        return Decision(outcomes, decision.writes), heads

    async def _heads_of(
        self, sender: UserId, seqs: Mapping[ConversationId, Seq]
    ) -> Sequence[Conversation]:
        """The rows of a sender's conversations, which reach at least to these seqs."""
        try:
            rows = await self._hot.views(sender, list(seqs))
        except TrunklineError as error:
            _log.warning("resent_not_told", code=error.code, detail=error.detail)
            return ()
        return [
            msgspec.structs.replace(row, head=max(row.head, seqs[row.id]))
            for row, _ in rows.values()
        ]

    # --- what else other workers must learn -------------------------------------------------

    async def register(self, connection: Connection, turns: Turns) -> None:
        """From when it returns, notes for the user and frames for the connection come here:
        before it reads any head.

        What stands in a database that does not answer follows once it does.
        """
        user = connection.user
        await self._watching.present(user)
        async with turns.of(0):
            listed = await self._listed(user)
        connection.listed = len(listed)
        self._watching.listed(user, max((line.version for line in listed), default=0))
        async with turns.of(connection.listed):
            lanes: dict[int, list[UserConversation]] = {}
            for line in listed:
                lanes.setdefault(self._lanes.of_key(line.key), []).append(line)
            rows = await asyncio.gather(*(self._views(user, lines) for lines in lanes.values()))
            async for some in paced(list(chain.from_iterable(rows))):
                self._registry.watch_loaded(connection, some)
            self._registry.loaded(connection)
            await self._watching.watch(list(connection.watched))

    async def _listed(self, user: UserId) -> Sequence[UserConversation]:
        try:
            return await self._hot.conversations_of(user)
        except StorageUnavailable:
            self._repairs.look_at_list(user)
            return ()

    async def _views(
        self, user: UserId, lines: Sequence[UserConversation]
    ) -> Iterable[tuple[Conversation, Member]]:
        try:
            return (await self._hot.views(user, [line.conversation for line in lines])).values()
        except StorageUnavailable:
            if not self._repairs.look_at_lines(user, lines):
                self._watching.listed(user, 0)
            return ()

    def marked(self, user: UserId, conversation: Conversation) -> None:
        """The user's marker moved: endpoints at other workers are told."""
        self._publisher.note(Note(conversation.key, conversation.id, (user,), False))
