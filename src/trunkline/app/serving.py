"""One serving process, from its stores to its drain: listeners, services, signals."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from trunkline.adapters.node.listening import Listening
from trunkline.app.open_files import fit_connections, most_files
from trunkline.config import Config
from trunkline.gateway.websocket import Gateway
from trunkline.http.ops import serve_ops
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.readiness import Readiness

_log = structlog.get_logger("trunkline.app")


async def run_server(
    config: Config,
    stores: Stores,
    *,
    archives: bool,
    shares_port: bool = False,
    on_listening: Callable[[Listening], None],
    on_draining: Callable[[], None],
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; returns once everyone was told and is gone.

    `archives`: whether the archiver runs in this process, too. `shares_port`: whether other
    workers listen on the same one. Raises `AddressInUse`, `ConfigInvalid`.
    """
    most = most_files()
    backbone = Backbone(stores, fit_connections(config.services, most), archives=archives)
    gateway = Gateway(backbone, config.gateway, stores.clock, most)
    stopping = stop_on_signals()
    serving_now = False
    readiness = Readiness(stores.health, serving=lambda: serving_now)
    async with AsyncExitStack() as stack:
        ops_port = await stack.enter_async_context(
            serve_ops(config.ops, backbone.metrics.registry, readiness)
        )
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(backbone.run())
            group.create_task(gateway.run())
            port = await gateway.listen(shared=shares_port)
            listening = Listening(
                f"ws://{reachable(config.gateway.host)}:{port}/v1",
                f"http://{reachable(config.ops.host)}:{ops_port}",
                os.getpid(),
            )
            serving_now = True
            _log.info("listening", url=listening.url, ops_url=listening.ops_url)
            on_listening(listening)
            await stopping.wait()
            serving_now = False
            _log.info("draining", connections=backbone.registry.count)
            on_draining()
            gateway.stop_accepting()
            backbone.drain()
            await serving
            await gateway.closed_by_peers(config.services.drain_seconds)
            gateway.close()
    _log.info("stopped")


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def tune_interpreter() -> None:
    """Collects seldom, since cycles are rare and the heap is large; never what was there at start.

    Threads that only wait for disks take the interpreter back in half a millisecond.
    """
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def reachable(host: str) -> str:
    """A host as a local client reaches it."""
    found = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{found}]" if ":" in found else found
