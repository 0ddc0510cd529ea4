"""Composition root of a cluster's processes: Redis, MySQL and HBase behind the same services."""

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import structlog

from trunkline.adapters.hbase.layout import LAYOUT
from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.opening import HbaseTier, open_hbase
from trunkline.adapters.jwt import JwtAuthenticator
from trunkline.adapters.keyring import KeyringSealer
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.mysql.migrate import Migrated
from trunkline.adapters.mysql.stores import (
    MysqlStores,
    agreed_sentinel,
    migrate_mysql,
    open_mysql,
)
from trunkline.adapters.node.listening import Listening
from trunkline.adapters.redis.stores import open_redis
from trunkline.app.clear_ways import warn_of_clear_ways
from trunkline.app.keys import bind_rows, open_node_sealer, open_token_keys
from trunkline.app.serving import reachable, run_server, stop_on_signals, tune_interpreter
from trunkline.config import Config
from trunkline.core.auditing import AuditReport
from trunkline.errors import StoreNotMigrated, TrunklineError
from trunkline.http.ops import serve_ops
from trunkline.model import WorkerId
from trunkline.ports.clock import Clock
from trunkline.ports.readings import Reading
from trunkline.services.archiver import Archiver
from trunkline.services.audit import Audit
from trunkline.services.backbone import Stores
from trunkline.services.crossing import Cluster
from trunkline.services.keys import KeyChanges
from trunkline.services.metrics import Metrics
from trunkline.services.readiness import Readiness
from trunkline.services.readings import Readings

_log = structlog.get_logger("trunkline.app")


class Tiers(msgspec.Struct, frozen=True):
    """The durable tiers of a cluster, and what opens what they hold."""

    hot: MysqlStores
    cold: HbaseTier
    sealer: KeyringSealer

    async def watch(self) -> None:
        """Looks after the tiers until cancelled: one that is away is used once it is back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.hot.watch())
            group.create_task(self.cold.table.watch())

    def readings(self) -> list[Reading]:
        """What these tiers tell an operator."""
        return [*self.hot.readings(), *self.cold.readings()]


async def migrate(
    config: Config, *, after: bool = False, sentinel: Callable[[], bytes] | None = None
) -> list[tuple[str, Migrated]]:
    """Makes the deployment's keys if it has none yet, and makes or upgrades the tables.

    Keys that a further machine lacks are not made: they would be others than the deployment's.

    `after`: no worker of an older version runs any more. `sentinel`: what the deployment agrees
    on, if it has agreed on nothing yet; else the node's keyring makes it. Returns each place
    with the steps that were made there and those that wait for `after`. Raises `StoreNewer`,
    `StorageUnavailable`, `KeyringMissing`, `KeyringWrong`.
    """
    first = await agreed_sentinel(config.mysql) is None
    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sealer = open_node_sealer(config.data_path, config.keyring, create=first)
    if first:
        open_token_keys(config.data_path, create=True)
    made = await migrate_mysql(config.mysql, sentinel or sealer.sentinel, after=after)
    hbase = f"{config.hbase.host}:{config.hbase.port}/{config.hbase.table}"
    laid_out = [f"{LAYOUT:04}"] if await migrate_hbase(config.hbase) else []
    made.append((hbase, Migrated(laid_out, ())))
    async with open_mysql(config.mysql, SystemClock(), agree=sealer.verify_sentinel):
        pass
    if after and not sealer.bound:
        async with open_tiers(config, SystemClock(), unbound=True) as tiers:
            hot = tiers.hot
            changes = KeyChanges(hot.hot, hot.keys, tiers.cold.cold, tiers.sealer)
            await bind_rows(tiers.sealer, hot.keys, changes)
    return made


async def serve_worker(config: Config, *, on_listening: Callable[[Listening], None]) -> None:
    """Runs one worker until SIGTERM or SIGINT, then drains it.

    It starts though a tier is away. Raises what keeps it from starting: a login that is refused
    (`StorageUnavailable`, `TierUnavailable`), `StoreNotMigrated`, `StoreNewer`, `ServerUnsafe`,
    `KeyringMissing`, `KeyringWrong`, `AddressInUse`.
    """
    tune_interpreter()
    clock = SystemClock()
    worker = WorkerId(secrets.token_hex(8))
    async with (
        open_tiers(config, clock) as tiers,
        open_redis(config.redis, worker, clock, random.random) as redis,
    ):
        hot = tiers.hot.hot
        keys = open_token_keys(config.data_path, create=False)
        stores = Stores(
            hot, tiers.hot.tasks, tiers.cold.cold, redis.cached, tiers.sealer,
            JwtAuthenticator(keys, clock), clock, secrets.randbits,
            cluster=Cluster(worker, redis.bus, hot, redis.heads, tiers.hot.generations),
            lanes=hot.lanes,
            readings=[*tiers.readings(), *redis.readings()],
            health=[*tiers.hot.health(), redis.health(), tiers.cold.health(needed=False)],
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(tiers.watch()),
                group.create_task(tiers.hot.upkeep.run()),
                group.create_task(_follow_keys(tiers, config.services.keys_refresh_seconds)),
            ]
            await run_server(
                config, stores, archives=False, shares_port=True,
                on_listening=on_listening, on_draining=lambda: None,
            )  # fmt: skip
            for task in beside:
                task.cancel()


async def archive(config: Config, *, on_listening: Callable[[Listening], None]) -> None:
    """Runs an archiver of each database until SIGTERM or SIGINT; any number may run."""
    clock = SystemClock()
    metrics = Metrics()
    async with open_tiers(config, clock) as tiers:
        metrics.registry.register(Readings(tiers.readings()))
        archivers = [
            Archiver(
                tiers.hot.hot, of.tasks, tiers.cold.cold, tiers.sealer, clock, metrics,
                config.services, of.load, secrets.randbits, name=of.name,
            )
            for of in tiers.hot.archiving
        ]  # fmt: skip
        stopping = stop_on_signals()
        health = [*tiers.hot.health(), tiers.cold.health(needed=True)]
        readiness = Readiness(health, serving=lambda: not stopping.is_set())
        async with (
            serve_ops(config.ops, metrics.registry, readiness) as port,
            asyncio.TaskGroup() as group,
        ):
            seconds = config.services.keys_refresh_seconds
            beside = [
                group.create_task(tiers.watch()),
                group.create_task(_follow_keys(tiers, seconds, refreshes=True)),
            ]
            for archiver in archivers:
                group.create_task(archiver.run())
            on_listening(Listening("", f"http://{reachable(config.ops.host)}:{port}", os.getpid()))
            await stopping.wait()
            for archiver in archivers:
                archiver.close()
            for task in beside:
                task.cancel()
    _log.info("stopped")


async def audit(config: Config) -> AuditReport:
    """Checks all that the tiers hold, as one moment of each database shows it.

    Nobody should write meanwhile: the databases' moments are not the same one. Raises where
    nothing could be looked at: `StorageUnavailable`, `StoreNotMigrated`, `KeyringMissing`,
    `KeyringWrong`.
    """
    sealer = open_node_sealer(config.data_path, config.keyring, create=False)
    if sentinel := await agreed_sentinel(config.mysql):
        sealer.verify_sentinel(sentinel)
    # The hot tier's moment first: what it lacks by then, the cold one has for good.
    async with MysqlInspection(config.mysql) as hot, open_hbase(config.hbase) as cold:
        return await Audit(hot, cold.inspection, sealer, SystemClock()).run()


@asynccontextmanager
async def open_tiers(
    config: Config, clock: Clock, *, unbound: bool = False
) -> AsyncIterator[Tiers]:
    """The durable tiers, while the context is open.

    One that is away refuses what it is asked, retryably, until `Tiers.watch` finds it back. Raises
    what is wrong with one that is there. `unbound`: also where rows are still to be bound to
    their places; else nobody works with such: what was written meanwhile would stay unbound.
    """
    warn_of_clear_ways(config)
    sealer = open_node_sealer(config.data_path, config.keyring, create=False)

    def agree(sentinel: bytes) -> None:
        sealer.agree(sentinel)
        if not (sealer.bound or unbound):
            raise StoreNotMigrated(
                "Members' rows and keys are not bound to their places yet: stop the workers of "
                "the version before, then run `trunkline migrate --after`."
            )

    async with (
        open_mysql(config.mysql, clock, agree=agree) as hot,
        open_hbase(config.hbase) as cold,
    ):
        yield Tiers(hot, cold, sealer)


async def _follow_keys(tiers: Tiers, seconds: float, *, refreshes: bool = False) -> None:
    """Learns of a new KEK that the deployment has agreed on; runs until cancelled.

    `refreshes`: whether nobody else in this process reads the keyring again.
    """
    while True:
        await asyncio.sleep(seconds)
        try:
            if refreshes:
                tiers.sealer.refresh()
            tiers.sealer.agree(await tiers.hot.keys.sentinel())
        except TrunklineError as error:
            _log.warning("keys_not_followed", code=error.code, detail=error.detail)
