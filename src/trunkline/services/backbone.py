"""The services of one worker, put together over the ports, and what a connection asks of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from trunkline.core.appending import AppendPlanner
from trunkline.core.lanes import ONE_LANE, Lanes
from trunkline.errors import Overloaded, Replaced, ShuttingDown, TokenOfAnotherUser, TrunklineError
from trunkline.model import StoreLife, UserId
from trunkline.ports.authenticator import Authenticator, Grant
from trunkline.ports.cached import CachedTier
from trunkline.ports.clock import Clock
from trunkline.ports.cold import ColdStore
from trunkline.ports.head_changes import HeadChanges
from trunkline.ports.hot import HotStore
from trunkline.ports.identity import Identity
from trunkline.ports.outlet import Outlet
from trunkline.ports.readiness import TierHealth
from trunkline.ports.readings import Reading
from trunkline.ports.sealer import Sealer
from trunkline.ports.tasks import TaskStore
from trunkline.services.access import Views
from trunkline.services.append import AppendService
from trunkline.services.archiver import Archiver
from trunkline.services.authentic import AuthenticHotStore
from trunkline.services.batch_load import BatchLoad
from trunkline.services.charges import Charges, Rates
from trunkline.services.claims import Claims
from trunkline.services.comparing import CachedComparison, Comparison, StoredComparison
from trunkline.services.crossing import AfterCommit, Alone, Cluster, Crossing
from trunkline.services.drafting import Drafting, FreshKeys
from trunkline.services.durable_offsets import DurableOffsets
from trunkline.services.fanout import FanOut
from trunkline.services.lane import Bounds
from trunkline.services.list_bound import ListBound
from trunkline.services.markers import Markers
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import paced, step_by_step
from trunkline.services.pulls import Pulls
from trunkline.services.reader import Reader
from trunkline.services.readings import Readings
from trunkline.services.refusals import Refusals
from trunkline.services.registry import Connection, Registry
from trunkline.services.settings import ServiceSettings
from trunkline.services.sync import Syncs
from trunkline.services.turns import Turns
from trunkline.wire.close import Close
from trunkline.wire.frames import PROTOCOL_VERSION, Goodbye, Hello, Limits, Sync, Synced, Welcome

_log = structlog.get_logger("trunkline.backbone")
_EVICT_SECONDS = 30.0
_LISTS_SECONDS = 1.0
_DEAR_ALONE = 2
_DEAR_PER_LANE = 4


class Stores(msgspec.Struct, frozen=True):
    """The ports that a worker stands on.

    `cluster`: there where others share the tiers, `head_changes` where none do. `identity`: there
    where the store knows it.
    """

    hot: HotStore
    tasks: TaskStore
    cold: ColdStore
    cached: CachedTier
    sealer: Sealer
    authenticator: Authenticator
    clock: Clock
    random_bits: Callable[[int], int]
    lanes: Lanes = ONE_LANE
    cluster: Cluster | None = None
    identity: Identity | None = None
    readings: Sequence[Reading] = ()
    head_changes: HeadChanges | None = None
    health: Sequence[TierHealth] = ()


class Backbone:
    """One worker: append, fan-out, reads, sync, markers, archiver."""

    def __init__(self, stores: Stores, settings: ServiceSettings, *, archives: bool = True) -> None:
        """`archives`: whether the archiver runs here, too."""
        self._archives = archives
        self.metrics = metrics = Metrics()
        stores = msgspec.structs.replace(
            stores, hot=AuthenticHotStore(stores.hot, stores.sealer.macs, metrics)
        )
        self._stores = stores
        self.settings = settings
        metrics.registry.register(Readings(stores.readings))
        self.registry = Registry()
        hot, cached, cold, sealer, clock = (
            stores.hot, stores.cached, stores.cold, stores.sealer, stores.clock,
        )  # fmt: skip
        self._fresh_keys = FreshKeys(sealer, stores.random_bits)
        self._lists = ListBound(hot, clock, most_lines=settings.user_conversations)
        self._rates = Rates(settings, clock, self._lists)
        self._turns = Turns(
            dear=_DEAR_ALONE if stores.cluster is None else _DEAR_PER_LANE * stores.lanes.count
        )
        self._draining = False
        self._drained = asyncio.Event()
        self._views = Views(hot)
        self._crossing: Crossing | None = None
        self.refusals = Refusals(clock, metrics)
        fanout = FanOut(self.registry, metrics, self.refusals)
        after: AfterCommit = Alone(cached, fanout)
        if stores.cluster is not None:
            after = self._crossing = Crossing(
                stores.cluster, hot, cached, sealer, clock, self.registry, metrics,
                self.refusals, stores.random_bits, lanes=stores.lanes,
                sweep_seconds=settings.sweep_seconds,
            )  # fmt: skip
            fanout = self._crossing.fanout
        self._planner = self._make_planner()
        self.append = AppendService(
            hot, self._planner, fanout, after, clock, metrics,
            lanes=stores.lanes.count, lane_of=stores.lanes.of,
            bounds=Bounds(
                settings.append_queue, settings.append_queue_bytes,
                settings.append_batch, settings.append_batch_bytes,
            ),
        )  # fmt: skip
        self._reader = reader = Reader(hot, cached, cold, sealer, clock, metrics, settings)
        self.pulls = Pulls(
            self._views, reader, metrics,
            page_bytes=settings.page_bytes, most_ranges=settings.ranges_per_pull,
        )  # fmt: skip
        self._offsets = DurableOffsets(
            hot,
            stores.lanes,
            metrics,
            interval_seconds=settings.offsets_write_seconds,
            most=settings.offsets_waiting,
        )
        self.syncs = self._make_syncs()
        self.markers = Markers(
            hot, self._views, reader, self.registry, queue=settings.append_queue,
            lanes=stores.lanes, crossing=self._crossing,
        )  # fmt: skip
        self.claims = self._claims_of(stores)
        self.archiver = Archiver(
            hot, stores.tasks, cold, sealer, clock, metrics, settings,
            BatchLoad(
                lambda: self.append.batches, clock,
                busy_batches_per_second=settings.archive_busy_batches_per_second,
            ),
            stores.random_bits,
        )  # fmt: skip

    def _make_planner(self) -> AppendPlanner:
        return AppendPlanner(
            self._stores.sealer.cipher,
            self._stores.sealer.macs,
            group_members=self.settings.group_members,
            membership_bytes=self.settings.membership_bytes,
            compress_bodies=self.settings.compress_bodies,
            joins=self._rates.joins,
        )

    def _claims_of(self, stores: Stores) -> Claims:
        if (identity := stores.identity) is not None:
            self.metrics.store_generation.set_function(lambda: identity.life.generation)
        return Claims(
            identity, stores.hot, self._views, stores.sealer, self.append, self.syncs.describe,
            self.syncs.charge, stores.clock, self.metrics,
        )  # fmt: skip

    def _make_syncs(self) -> Syncs:
        stores, settings = self._stores, self.settings
        charges = Charges(settings.offsets_per_second, settings.offsets_burst, stores.clock)
        return Syncs(
            stores.hot, stores.cached, self._comparison(), stores.sealer, self._views,
            self._offsets, self.metrics,
            page_conversations=settings.sync_page_conversations,
            most_offsets=settings.offsets_per_frame,
            turns=self._turns, charges=charges, random_bits=stores.random_bits,
        )  # fmt: skip

    def _comparison(self) -> Comparison:
        stores, crossing = self._stores, self._crossing
        if stores.cluster is None or crossing is None:
            return StoredComparison(
                stores.hot, stores.head_changes, most_bytes=self.settings.sync_bytes
            )
        return CachedComparison(
            stores.hot, stores.cluster.heads, stores.cached, stores.cluster.cached_heads,
            crossing.leases, self.metrics, lane_of=stores.lanes.of,
            most_bytes=self.settings.sync_bytes,
        )  # fmt: skip

    async def run(self) -> None:
        """Runs the background services until `drain`; what is queued then is finished."""
        async with asyncio.TaskGroup() as group:
            letting_go = group.create_task(self._let_go())
            group.create_task(self._run_appends()).add_done_callback(lambda _: letting_go.cancel())
            group.create_task(self._offsets.run())
            group.create_task(self._repeat(_EVICT_SECONDS, self._stores.cached.evict_idle))
            group.create_task(self._repeat(_LISTS_SECONDS, self._lists.look))
            group.create_task(self._repeat(self.settings.keys_refresh_seconds, self._refresh_keys))
            if self._archives:
                group.create_task(self.archiver.run())
            if self._crossing is not None:
                group.create_task(self._crossing.run())

    async def _run_appends(self) -> None:
        await self.append.run()
        self.registry.close_all(Close.SHUTTING_DOWN, ShuttingDown())
        self._offsets.close()
        if self._crossing is not None:
            self._crossing.close()
        self._drained.set()

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        while not self._drained.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._drained.wait()
            except TimeoutError:
                await work()

    async def _refresh_keys(self) -> None:
        """Takes over a changed keyring; forgets data keys, and what they opened, that are idle:
        one of them may have been destroyed.
        """
        self._planner.forget_idle()
        self._reader.forget_old()
        try:
            self._stores.sealer.refresh()
        except TrunklineError as error:
            _log.warning("keyring_not_read", code=error.code, detail=error.detail)

    def drain(self) -> None:
        """Takes no more connections and drafts; `run` commits, answers, closes, returns."""
        self._draining = True
        self.archiver.close()
        self.append.drain()

    def admit(self, hello: Hello, outlet: Outlet, name: str) -> tuple[Grant, Connection]:
        """Checks the token and makes the connection; raises `Unauthenticated`, `Overloaded`."""
        if self._draining:
            raise ShuttingDown
        grant = self._stores.authenticator.authenticate(hello.token)
        if hello.user is not None and hello.user != grant.user:
            raise TokenOfAnotherUser
        if self.registry.count >= self.settings.connections:
            raise Overloaded(retry_after_seconds=5.0)
        of_user = list(self.registry.of_user(grant.user))
        if len(of_user) >= self.settings.connections_per_user:
            # The oldest: of those of a device that was cut off, the server learns last.
            self._replace(of_user[0])
        connection = Connection(name, grant.user, hello.endpoint, outlet, push=hello.push)
        self.registry.attach(connection)
        self.metrics.connections.set(self.registry.count)
        return grant, connection

    def _replace(self, connection: Connection) -> None:
        error = Replaced()
        self.metrics.closed.labels(Close.REPLACED.name.lower()).inc()
        connection.write(Goodbye(error.code, error.detail, Close.REPLACED.reconnect))
        connection.outlet.close(Close.REPLACED, error.code)
        self.detach(connection)

    def detach(self, connection: Connection) -> None:
        """The connection is gone."""
        self.registry.detach(connection)
        self.syncs.closed(connection)
        self.metrics.connections.set(self.registry.count)

    async def register(self, connection: Connection) -> None:
        """From now on the connection is pushed what its user may see."""
        if not connection.push:
            return
        if self._crossing is not None:
            await self._crossing.register(connection, self._turns)
            return
        hot, user = self._stores.hot, connection.user
        async with self._turns.of(0):
            listed = await hot.conversations_of(user)
        connection.listed = len(listed)
        async with self._turns.of(connection.listed):
            async for some in paced(listed):
                rows = await hot.views(user, [line.conversation for line in some])
                self.registry.watch_loaded(connection, rows.values())
            self.registry.loaded(connection)

    async def _let_go(self) -> None:
        """Those who left watch nothing any more, soon, without the loop stopping for it."""
        while True:
            await self.registry.leaves.wait()
            await step_by_step(self.registry.let_go())

    def refresh(self, token: str, user: UserId) -> Grant:
        """The grant of a new token for the same user."""
        grant = self._stores.authenticator.authenticate(token)
        if grant.user != user:
            raise TokenOfAnotherUser
        return grant

    def drafting(self, user: UserId) -> Drafting:
        """Makes the drafts of a connection; the rate is the user's, over all connections."""
        return Drafting(user, self._rates, self._fresh_keys, self._stores.clock, self.settings)

    def welcome(self, connection: Connection, expires_ms: int) -> Welcome:
        """The answer to `hello`."""
        s = self.settings
        return Welcome(
            PROTOCOL_VERSION,
            connection.user,
            connection.name,
            self._stores.clock.now_ms(),
            s.heartbeat_seconds,
            expires_ms,
            Limits(
                s.body_bytes, s.frame_bytes, s.group_members, s.users_per_operation,
                s.open_requests, s.sends_per_second, s.send_burst, s.offsets_per_frame,
            ),
            self._life,
        )  # fmt: skip

    async def sync(self, connection: Connection, frame: Sync) -> Synced:
        """The answer to `sync`."""
        answer = await self.syncs.sync(connection, frame)
        life = self._life
        return msgspec.structs.replace(answer, store=life) if life is not None else answer

    @property
    def _life(self) -> StoreLife | None:
        identity = self._stores.identity
        return None if identity is None else identity.life
