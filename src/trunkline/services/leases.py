"""Leases on the cache generations: whether a cached head may be believed, and when a commit may
be acknowledged that the cached tier did not take over (DESIGN section 3, step 7).

The rules stand in `core.generations`.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from trunkline.core.generations import ID_BYTES, Generation
from trunkline.errors import OutcomeUnknown, TrunklineError
from trunkline.ports.cached_heads import CachedHeads
from trunkline.ports.clock import Clock
from trunkline.ports.generations import Generations
from trunkline.services.metrics import Metrics

_log = structlog.get_logger("trunkline.leases")

LEASE_SECONDS: Final = 1.0
_WAITED_OUT_SECONDS: Final = 1.05 * LEASE_SECONDS
"""Clocks of two machines may differ by a twentieth in how fast they go."""
_TICK_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 0.2
_GIVE_UP_SECONDS: Final = 10.0
_SOON_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = (1.0, 60.0)
"""Before a generation is opened again that was closed soon after it had been opened."""


class Lease(msgspec.Struct, frozen=True):
    """What is known of a database's generation until a time of the monotonic clock.

    And as long by the clocks of the cached tier, which went on if this worker stood still in a
    way that its own did not show: `seen` is what they were before the generation was read.
    """

    lane: int
    generation: Generation
    until: float
    seen: Mapping[bytes, float]


class _Lane:
    """What this worker knows of one database's generation.

    `since`: that it stands there. `quiet_since`: that nobody is given a lease to believe it.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.generation: Generation | None = None
        self.since = self.quiet_since = math.inf
        self.opened_at = -math.inf
        self.pause = 0.0


class Leases:
    """The leases of one worker, and its part in keeping the generations."""

    def __init__(
        self,
        generations: Generations,
        cached: CachedHeads,
        clock: Clock,
        random_bits: Callable[[int], int],
        metrics: Metrics,
        *,
        lanes: int,
    ) -> None:
        self._generations = generations
        self._cached = cached
        self._clock = clock
        self._random_bits = random_bits
        self._metrics = metrics
        self._lanes = [_Lane() for _ in range(lanes)]

    # --- reading --------------------------------------------------------------------------

    async def of(self, lane: int) -> Lease:
        """A lease that holds now; raises `StorageUnavailable`."""
        lease = self._lanes[lane].lease
        if lease is not None and self._holds(lease):
            return lease
        until, seen = self._clock.monotonic() + LEASE_SECONDS, self._cached.clocks
        lease = Lease(lane, await self._generations.current(lane), until, seen)
        self._learn(lane, lease.generation)
        self._lanes[lane].lease = lease
        return lease

    def believes(self, lease: Lease) -> bool:
        """Whether heads under the lease's stamp count on the server that calls go to."""
        generation = lease.generation
        return generation.open and generation.server == self._cached.server

    async def still(self, lease: Lease) -> bool:
        """Whether its generation stands without a break since; raises `StorageUnavailable`."""
        return self._holds(lease) or ((await self.of(lease.lane)).generation == lease.generation)

    # --- writing --------------------------------------------------------------------------

    async def settle(self, lease: Lease, *, taken: bool) -> None:
        """Returns once a commit under the lease may be acknowledged.

        `taken`: the cached tier took its heads over. Raises `OutcomeUnknown` where that
        cannot be found out.
        """
        if lease.generation.server:
            if taken and lease.generation.server == self._cached.server:
                try:
                    if await self.still(lease):
                        return
                except TrunklineError as error:
                    _log.warning("lease_not_renewed", code=error.code)
        # Without the tier, and so without its clocks, only the hot tier can tell.
        await self._withdraw(lease.lane)

    async def run(self) -> None:
        """Binds, opens and closes the generations as the server comes and goes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in range(len(self._lanes)):
                group.create_task(self._keep(lane))

    async def _keep(self, lane: int) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self._tend(lane)
            except TrunklineError as error:
                _log.debug("generation_not_tended", code=error.code, lane=lane)

    async def _withdraw(self, lane: int) -> None:
        """Returns once nobody believes a head from before: not open, and every lease ended.

        If it is opened after this, it is with heads that were read later.
        """
        give_up_at = self._clock.monotonic() + _GIVE_UP_SECONDS
        while True:
            try:
                current = await self._generations.current(lane)
                self._learn(lane, current)
                if not current.open or await self._replace(lane, current, self._new()):
                    break
            except TrunklineError as error:
                if self._clock.monotonic() >= give_up_at:
                    raise OutcomeUnknown from error
                await asyncio.sleep(_RETRY_SECONDS)
        await asyncio.sleep(max(0.0, self._rest(self._lanes[lane].quiet_since)))

    async def _tend(self, lane: int) -> None:
        generation = (await self.of(lane)).generation
        known = self._lanes[lane]
        server = self._cached.server if self._cached.answers else b""
        if not server:
            return
        if generation.server and generation.server != server:
            await self._replace(lane, generation, self._new())
        elif not generation.server:
            if self._clock.monotonic() >= known.since + known.pause:
                await self._replace(lane, generation, generation.bound(server))
        elif not generation.open and self._rest(known.since) <= 0:
            await self._replace(lane, generation, generation.opened())

    async def _replace(self, lane: int, old: Generation, new: Generation) -> bool:
        replaced = await self._generations.replace(lane, old, new)
        if replaced:
            self._learn(lane, new)
            change = "open" if new.open else "bind" if new.server else "close"
            self._metrics.generation_changes.labels(change).inc()
            _log.info("cache_generation", change=change, lane=lane)
        self._lanes[lane].lease = None
        return replaced

    def _learn(self, lane: int, generation: Generation) -> None:
        """Notes since when this worker knows what stands there."""
        known = self._lanes[lane]
        if known.generation == generation:
            return
        now = self._clock.monotonic()
        if generation.open:
            known.opened_at, known.quiet_since = now, math.inf
        elif known.quiet_since == math.inf or (
            known.generation is not None and known.generation.id != generation.id
        ):
            known.quiet_since = now  # answers may come out of order: also after an open one
        if not generation.server:
            least, most = _PAUSE_SECONDS
            soon = now - known.opened_at < _SOON_SECONDS
            known.pause = min(most, max(least, 2 * known.pause)) if soon else 0.0
        known.generation, known.since = generation, now

    def _rest(self, since: float) -> float:
        """Seconds until every lease from before a time has ended."""
        return since + _WAITED_OUT_SECONDS - self._clock.monotonic()

    def _holds(self, lease: Lease) -> bool:
        if self._clock.monotonic() >= lease.until:
            return False
        seen = lease.seen.get
        return all(
            now - seen(server, -math.inf) < LEASE_SECONDS
            for server, now in self._cached.clocks.items()
        )

    def _new(self) -> Generation:
        return Generation.closed(self._random_bits(8 * ID_BYTES))
