"""Simulated server: the real services on memory stores over a disk that a crash makes forget.

One worker, or several that share the stores.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Final

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.bus import MemoryHub
from trunkline.adapters.memory.cached import CachedSettings, MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.generations import MemoryGenerations
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.adapters.memory.identity import MemoryIdentity
from trunkline.errors import TokenMissing, Unreachable
from trunkline.model import UserId, WorkerId
from trunkline.ports.authenticator import Grant
from trunkline.ports.cached import CachedTier
from trunkline.ports.cold import ColdStore
from trunkline.ports.outlet import Outlet
from trunkline.ports.tasks import TaskStore
from trunkline.services.archiver import Archiver
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.batch_load import BatchLoad
from trunkline.services.crossing import Cluster
from trunkline.services.session import ClientSession
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.delays import (
    DelayedBus,
    DelayedCached,
    DelayedCachedHeads,
    DelayedCold,
    DelayedGenerations,
    DelayedHeads,
    DelayedHot,
    DelayedTasks,
    Lag,
)
from trunkline.testing.disk import SimulatedDisk, SimulatedFile
from trunkline.testing.network import Network, Session

_TOKEN_MS: Final = 40_000
_DRAIN_SECONDS: Final = 5.0
_TWO_ARCHIVERS: Final = 0.3
"""The share of boots in which two archivers work side by side."""

TINY: Final = ServiceSettings(
    body_bytes=400,
    group_members=5,
    newest_single=4,
    newest_group=6,
    page_bytes=700,
    page_cache_bytes=2_000,
    segment_cache_bytes=4_000,
    read_cache_seconds=5.0,
    sync_page_conversations=2,
    sync_bytes=10_000,
    append_batch=8,
    append_queue=60,
    archive_interval_seconds=0.5,
    archive_lease=3,
    open_requests=4,
    ranges_per_pull=64,
    sends_per_second=200.0,
    send_burst=50,
    offsets_write_seconds=0.7,
    sweep_seconds=90.0,
)
"""Limits so small that everything that happens at a limit happens all the time."""
TINY_CACHE: Final = CachedSettings(conversation_entries=5, entries=25, idle_seconds=3.0, offsets=12)


class TokenIsUser:
    """An `Authenticator` that believes everybody: the token is the user; it ends soon."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock

    def authenticate(self, token: str) -> Grant:
        """The grant of a user; raises `TokenMissing`."""
        if not token:
            raise TokenMissing
        return Grant(UserId(token), self._clock.now_ms() + _TOKEN_MS)


class SimulatedWorker:
    """One process: gone after a crash, with all its connections.

    Attributes:
        outlets: of the connections that it took, ended ones too.
    """

    def __init__(self, worker: WorkerId, spawner: asyncio.TaskGroup) -> None:
        self.id = worker
        self.backbone: Backbone
        self.outlets: dict[Outlet, None] = {}
        self._is_on = True
        self._spawner = spawner
        self._tasks: dict[asyncio.Task[None], None] = {}

    def accept(self, outlet: Outlet, name: str) -> ClientSession:
        """Takes a connection."""
        self.outlets[outlet] = None
        return ClientSession(self.backbone, outlet, name, self.spawn)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something until it ends or the process does."""
        if not self._is_on:
            work.close()
            return
        task = self._spawner.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    async def drained(self) -> None:
        """Waits for a drain to end, so long as a supervisor would."""
        running = list(self._tasks)
        if running:
            await asyncio.wait(running, timeout=_DRAIN_SECONDS)

    async def end(self) -> None:
        """Ends whatever runs."""
        self._is_on = False
        ended = list(self._tasks)
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)
        self._tasks.clear()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)


class SimulatedServer:
    """One machine: its disk outlives it, everything else is gone after a crash.

    With more than one worker, these share the stores, and a hub stands for the tier between
    them. What a test wants to break it breaks by overriding a `make_` method.

    Attributes:
        boots: how often it was started.
        is_on: whether it runs, or at least its machine does.
        hot, inner_cold: the stores of this boot, past all delays.
        cold_is_down: whether the cold tier answers nothing.
        hub: what carries packets between the workers of this boot.
    """

    def __init__(
        self,
        seed: int,
        network: Network,
        clock: SimulatedClock,
        spawner: asyncio.TaskGroup,
        *,
        workers: int = 1,
    ) -> None:
        self.disk = SimulatedDisk(seed)
        self._seed = seed
        self.boots = 0
        self.is_on = False
        self._random = random.Random(f"server {seed}")
        self._network = network
        self._clock = clock
        self._spawner = spawner
        self._worker_count = workers
        self._lag = Lag(seed)
        self._second_archiver: Archiver | None = None
        keyring = Keyring("simulated", 1, {1: self._random.randbytes(32)})
        self.sealer = KeyringSealer(keyring, self._random.randbytes)
        self.identity = MemoryIdentity(random.Random(f"identity {seed}").randbytes)
        self.cold_is_down = False
        self.hot: MemoryHotStore
        self.inner_cold: ColdStore
        self.hub: MemoryHub
        self._cached: CachedTier
        self._generations: MemoryGenerations
        self._archive_tasks: TaskStore
        self._workers: list[SimulatedWorker] = []
        self._starts = 0

    # --- what it is made of ---------------------------------------------------------------

    def make_hot(self, file: SimulatedFile) -> MemoryHotStore:
        """The hot store over its journal."""
        return MemoryHotStore(self._clock, file)

    def make_cold(self, file: SimulatedFile) -> ColdStore:
        """The cold store over its journal."""
        return MemoryColdStore(file)

    def make_cached(self) -> CachedTier:
        """The cached tier."""
        return MemoryCachedTier(self._clock, TINY_CACHE)

    def make_backbone(self, stores: Stores) -> Backbone:
        """The services of one worker."""
        return Backbone(stores, TINY)

    # --- its life -------------------------------------------------------------------------

    def boot(self) -> None:
        """Starts on what the disk holds."""
        self.boots += 1
        self.hot = hot = self.make_hot(self.disk.open("hot"))
        self.inner_cold = self.make_cold(self.disk.open("cold"))
        self._archive_tasks = hot.tasks
        self._cached = self.make_cached()
        self._generations = MemoryGenerations()
        self.hub = MemoryHub(random.Random(f"hub {self._seed} {self.boots}"))
        self._workers = []
        for _ in range(self._worker_count):
            self.start_worker()
        self.is_on = True
        self._network.accept = self._accept

    def start_worker(self) -> None:
        """Starts one more worker on the stores of this boot."""
        self._starts += 1
        worker = SimulatedWorker(WorkerId(f"worker {self._starts}"), self._spawner)
        cached, cluster = self._cached, None
        if self._worker_count > 1:
            bus = DelayedBus(self.hub.open(worker.id), self._lag)
            cluster = Cluster(
                worker.id, bus, DelayedHeads(self.hot, self._lag),
                DelayedCachedHeads(self.hub.heads(worker.id), self._lag),
                DelayedGenerations(self._generations, self._lag),
            )  # fmt: skip
            cached = self.hub.tier(worker.id, cached)
        stores = Stores(
            DelayedHot(self.hot, self._lag),
            DelayedTasks(self._archive_tasks, self._lag),
            DelayedCold(self.inner_cold, self._lag, lambda: self.cold_is_down),
            DelayedCached(cached, self._lag),
            self.sealer,
            TokenIsUser(self._clock),
            self._clock,
            self._random.getrandbits,
            cluster=cluster,
            identity=self.identity,
            head_changes=self.hot.head_changes if cluster is None else None,
        )
        worker.backbone = self.make_backbone(stores)
        self._workers.append(worker)
        worker.spawn(worker.backbone.run())
        if self._random.random() < _TWO_ARCHIVERS:
            self._second_archiver = self._make_archiver(stores, worker.backbone)
            worker.spawn(self._second_archiver.run())

    async def worker_crashes(self) -> None:
        """One of several workers is killed; what it waited for may be done or not."""
        worker = self._workers.pop(self._random.randrange(len(self._workers)))
        self.hub.close(worker.id)
        self._network.worker_dies(worker.outlets)
        await worker.end()

    async def crash(self) -> int:
        """The power goes; returns how many records of the disk were forgotten."""
        self.is_on = False
        self._network.server_dies()
        forgotten = self.disk.crash()
        for worker in self._workers:
            await worker.end()
        return forgotten

    async def stop(self) -> None:
        """Shuts down in order: what is queued is committed and answered."""
        self.is_on = False
        self._network.accept = None
        if self._second_archiver is not None:
            self._second_archiver.close()
        for worker in self._workers:
            worker.backbone.drain()
        for worker in self._workers:
            await worker.drained()
        self._network.server_dies()
        for worker in self._workers:
            await worker.end()

    @property
    def workers(self) -> list[WorkerId]:
        """Those that run."""
        return [worker.id for worker in self._workers]

    def _make_archiver(self, stores: Stores, backbone: Backbone) -> Archiver:
        return Archiver(
            stores.hot,
            stores.tasks,
            stores.cold,
            stores.sealer,
            stores.clock,
            backbone.metrics,
            backbone.settings,
            BatchLoad(
                lambda: backbone.append.batches,
                stores.clock,
                busy_batches_per_second=backbone.settings.archive_busy_batches_per_second,
            ),
            stores.random_bits,
        )

    async def waiting_for_archive(self) -> int:
        """Number of conversations not yet fully archived."""
        return (await self._archive_tasks.waiting()).conversations

    def _accept(self, outlet: Outlet, name: str) -> Session:
        if not self._workers:
            raise Unreachable
        worker = self._workers[0]
        if len(self._workers) > 1:
            worker = self._random.choice(self._workers)
        return worker.accept(outlet, name)
