"""Copies what hot holds to cold, reads it back, compares, then trims (DESIGN section 7, I10)."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Set

import msgspec
import structlog

from trunkline.core.tiering import is_whole, trim_up_to
from trunkline.errors import DataDamaged, StorageUnavailable, TierUnavailable, TrunklineError
from trunkline.model import Conversation, ConversationKey, Seq
from trunkline.ports.clock import Clock
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.load import Load
from trunkline.ports.sealer import Sealer
from trunkline.ports.tasks import ArchiveTask, TaskStore, Waiting
from trunkline.services.archive_copy import Copier, Part
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.services.troubles import Troubles

_log = structlog.get_logger("trunkline.archiver")
_LEASE_SECONDS = 60.0
_METADATA_REMEMBERED = 50_000
_BACK_OFF_SECONDS = 5.0
_AWAY_SECONDS = 5.0
"""Mean pause before the cold tier is asked again; between half and one and a half of it, so
that archivers that lost it together do not come back together."""
_JITTER_BITS = 16
_MOST_PASS = 4096
_LEAST_PASS = 128
_SLOWEST_SHARE = 0.02
_REST_SHARE = 0.25
_LOOK_SECONDS = 0.25


class Pace:
    """How fast archiving may go: additive increase, multiplicative decrease.

    Source: AIMD as in congestion avoidance (RFC 5681).
    """

    def __init__(self, most_per_second: float) -> None:
        self._most = most_per_second
        self._least = most_per_second * _SLOWEST_SHARE
        self.entries_per_second = most_per_second

    def observe(self, *, busy: bool) -> None:
        """Takes notice of whether the online service is under load."""
        if busy:
            self.entries_per_second = max(self._least, self.entries_per_second / 2)
        else:
            self.entries_per_second = min(self._most, self.entries_per_second + self._most / 10)

    def pause_seconds(self, entries: int, worked_seconds: float) -> float:
        """The pause after so many entries, which took so long; some pause is always made."""
        return max(entries / self.entries_per_second - worked_seconds, _REST_SHARE * worked_seconds)


class Archiver:
    """Works through a database's archive tasks until closed; any number may run side by side.

    A task that fails waits, longer each time. While the cold tier is away none does: what was
    leased is given back at once, and the archiver waits, asking for a row until there is an
    answer. What fails together, though the tier answers, is tried once more one by one: what the
    tier refuses, or the part of it that is away, then keeps no other from being archived.
    """

    def __init__(
        self,
        hot: HotStore,
        tasks: TaskStore,
        cold: ColdStore,
        sealer: Sealer,
        clock: Clock,
        metrics: Metrics,
        settings: ServiceSettings,
        load: Load,
        random_bits: Callable[[int], int],
        *,
        name: str = "",
    ) -> None:
        """`load`: of what the sends wait for, too. `name`: of the database."""
        self._name = name
        self._hot = hot
        self._tasks = tasks
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._load = load
        self._cold = cold
        self._random_bits = random_bits
        self._away = False
        self._pace = Pace(settings.archive_entries_per_second)
        self._looked = clock.monotonic()
        self._copier = Copier(hot, cold, sealer, most_conversations=_METADATA_REMEMBERED)
        self._closing = asyncio.Event()
        self._cold_troubles = Troubles(_log, "cold_tier_away")
        self._troubles = Troubles(_log, "archiver_waits")
        self._waiting, self._counted = Waiting(0, 0.0), clock.monotonic()
        metrics.share(metrics.archive_pace, lambda: self._pace.entries_per_second)
        metrics.share(metrics.archive_waiting, lambda: self._waiting.conversations)
        metrics.share(metrics.archive_oldest_waiting, self._oldest_seconds, max)

    def close(self) -> None:
        """`run` returns after the conversation that is under way."""
        self._closing.set()

    async def run(self) -> None:
        """Archives whatever waits, at a pace that yields to the online service."""
        while not self._closing.is_set():
            pause = 0.0
            try:
                if self._away:
                    await self._ask_cold()
                if not await self.run_once():
                    pause = self._settings.archive_interval_seconds
                self._cold_troubles.passed(self._name)
                self._troubles.passed(self._name)
            except TierUnavailable as error:
                self._cold_troubles.failed(self._name, error)
                self._away = True
                pause = _AWAY_SECONDS * self._jitter()
            except TrunklineError as error:
                self._troubles.failed(self._name, error)
                pause = self._settings.archive_interval_seconds
            await self._pause(pause)

    async def _ask_cold(self) -> None:
        """Returns if the cold tier answers; raises `TierUnavailable`."""
        try:
            await self._probe_cold()
        except TierUnavailable:
            await self._show_waiting()
            raise
        self._away = False

    async def _probe_cold(self) -> None:
        """Asks for a row anywhere, not for a task's: this leases nothing from the hot tier, and
        no task's own trouble can pass for the tier's.
        """
        await self._cold.metadata(ConversationKey(self._random_bits(64)))

    async def run_once(self) -> int:
        """Leases tasks and archives them; returns the number of entries copied.

        Raises `TierUnavailable` when the cold tier does not answer; all that was leased and
        is not done is given back then.
        """
        until = self._clock.monotonic() + _LEASE_SECONDS
        tasks = await self._tasks.lease(self._settings.archive_lease, _LEASE_SECONDS)
        left = deque((task, task.conversation.archived_up_to) for task in tasks)
        copied = 0
        # What is left when the lease ends is somebody else's, or the next lease's.
        while left and not self._closing.is_set() and self._clock.monotonic() < until:
            began = self._clock.monotonic()
            parts = await self._gather(left)
            entries = sum(len(part.stored) for part in parts)
            try:
                failed = await self._archive(parts, until)
            except TierUnavailable:
                tasks = [part.task for part in parts] + [task for task, _ in left]
                leased = {task.conversation.key: task for task in tasks}
                await self._tasks.give_back(list(leased.values()))
                raise
            left = deque(piece for piece in left if piece[0].conversation.key not in failed)
            copied += entries
            await self._yield(entries, began)
        await self._show_waiting()
        return copied

    def _jitter(self) -> float:
        return 0.5 + self._random_bits(_JITTER_BITS) / (1 << _JITTER_BITS)

    async def _show_waiting(self) -> None:
        self._waiting = await self._tasks.waiting()
        self._counted = self._clock.monotonic()

    def _oldest_seconds(self) -> float:
        """As of now, though the store may not have answered since."""
        if not self._waiting.conversations:
            return 0.0
        return self._waiting.oldest_seconds + self._clock.monotonic() - self._counted

    async def _gather(self, left: deque[tuple[ArchiveTask, Seq]]) -> list[Part]:
        """Reads the next pass: many short conversations, or a piece of a long one."""
        room = max(_LEAST_PASS, min(_MOST_PASS, int(self._pace.entries_per_second / 10)))
        parts: list[Part] = []
        while left and room > 0:
            task, after = left.popleft()
            conversation = task.conversation
            up_to = Seq(min(conversation.head, after + room))
            if conversation.shredded:
                await self._tasks.done([task])
                continue
            if up_to <= after:
                # It was archived by one who ended before the trim, or in the middle of it.
                await self._hot.trim([(conversation.key, self._trim_up_to(conversation))])
                await self._tasks.done([task])
                continue
            stored = await self._hot.read(conversation.key, after, up_to)
            if not is_whole(stored, after, up_to):
                await self._fail(
                    [task], DataDamaged(f"I1: hot does not hold all of {after + 1} to {up_to}.")
                )
                continue
            parts.append(Part(task, stored))
            room -= len(stored)
            if up_to < conversation.head:
                left.appendleft((task, up_to))
        return parts

    async def _archive(self, parts: Sequence[Part], until: float) -> Set[ConversationKey]:
        """Archives parts, one by one where together they fail; returns what waits anew.

        Raises `TierUnavailable` if the cold tier is away, `StorageUnavailable` if the hot one is.
        """
        if not parts:
            return frozenset()
        try:
            return await self._archive_together(parts)
        except TrunklineError as error:
            await self._check_tiers(error)
            if len(parts) == 1:
                await self._fail([parts[0].task], error)
                return {parts[0].conversation.key}
            _log.info("archived_singly", code=error.code, detail=error.detail, tasks=len(parts))
        failed: set[ConversationKey] = set()
        for number, part in enumerate(parts):
            if self._closing.is_set() or self._clock.monotonic() >= until:
                return failed | {left.conversation.key for left in parts[number:]}
            try:
                failed |= await self._archive_together([part])
            except TrunklineError as error:
                await self._check_tiers(error)
                await self._fail([part.task], error)
                failed.add(part.conversation.key)
        return failed

    async def _check_tiers(self, error: TrunklineError) -> None:
        """Returns if an error may be that of a task; else raises what it is."""
        if isinstance(error, TierUnavailable):
            await self._probe_cold()
        elif isinstance(error, StorageUnavailable):
            raise error

    async def _archive_together(self, parts: Sequence[Part]) -> Set[ConversationKey]:
        """Copy, read back, compare, mark, trim; returns what is damaged and waits anew."""
        await self._copier.copy(parts)
        sound = [part for part in parts if await self._verified(part)]
        await self._tasks.archived([(part.task, part.up_to) for part in sound])
        rows = [
            msgspec.structs.replace(part.conversation, archived_up_to=part.up_to) for part in sound
        ]
        trims = [(row.key, self._trim_up_to(row)) for row in rows]
        await self._hot.trim([(key, up_to) for key, up_to in trims if up_to])
        await self._tasks.done([part.task for part in sound if part.reaches_head])
        now_ms = self._clock.now_ms()
        for part in sound:
            self._metrics.archived.inc(len(part.stored))
            self._metrics.archive_lag.observe((now_ms - part.stored[0].time_ms) / 1000)
        return {part.conversation.key for part in parts} - {row.key for row in rows}

    async def _verified(self, part: Part) -> bool:
        try:
            await self._copier.verify(part)
        except DataDamaged as error:
            await self._fail([part.task], error)
            return False
        return True

    async def _fail(self, tasks: Sequence[ArchiveTask], error: TrunklineError) -> None:
        if not tasks:
            return
        self._metrics.archive_failures.labels(error.code).inc(len(tasks))
        _log.warning("archive_failed", code=error.code, detail=error.detail, tasks=len(tasks))
        for task in tasks:
            pause = _BACK_OFF_SECONDS * 2 ** min(task.attempts, 6)
            await self._tasks.failed(task, error.code, pause * self._jitter())

    def _trim_up_to(self, conversation: Conversation) -> Seq:
        settings = self._settings
        return trim_up_to(
            conversation,
            newest_single=settings.newest_single,
            newest_group=settings.newest_group,
        )

    async def _yield(self, entries: int, began: float) -> None:
        now = self._clock.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            busy = await self._load.is_busy()
            self._metrics.archive_yields.inc(busy)
            self._pace.observe(busy=busy)
        await self._pause(self._pace.pause_seconds(entries, now - began))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass
