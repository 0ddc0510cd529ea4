"""Composition root: the embedded server from its configuration, from start to drain."""

import asyncio
import gc
import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from trunkline.adapters.jwt import JwtAuthenticator, TokenKeys
from trunkline.adapters.jwt.tokens import SECRET_BYTES, TOKENS_FILE
from trunkline.adapters.keyring import KeyringSealer, open_keyring
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import open_embedded
from trunkline.adapters.sqlite.directory import read_format
from trunkline.adapters.sqlite.listening import SERVER_FILE, Listening
from trunkline.config import Config
from trunkline.errors import KeyringWrong
from trunkline.gateway.websocket import Gateway
from trunkline.http.ops import serve_ops
from trunkline.services.backbone import Backbone, Stores

KEYRING_FILE = "keyring.json"
SENTINEL_FILE = "sentinel"

_log = structlog.get_logger("trunkline.app")


def open_sealer(data: Path) -> KeyringSealer:
    """The data directory's keyring, made with it and checked against it.

    Raises `DataDirInvalid`, `DataDirNewer`, `KeyringMissing` or `KeyringWrong` before
    anything is opened or written.
    """
    fresh = read_format(data) is None
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    sentinel = data / SENTINEL_FILE
    sealer = open_keyring(data / KEYRING_FILE, create=fresh and not sentinel.exists())
    if sealer.keyring.created:
        _log.warning(
            "keyring_made", path=str(sealer.keyring.path),
            advice="Keep a copy elsewhere: without it nothing stored can be read.",
        )  # fmt: skip
    if sealer.keyring.readable_by_others:
        _log.warning("keyring_readable_by_others", path=str(sealer.keyring.path))
    if sentinel.exists():
        sealer.verify_sentinel(sentinel.read_bytes())
    elif fresh:
        _write_durably(sentinel, sealer.sentinel())
    else:
        raise KeyringWrong(f"{sentinel} is missing: it tells that the keyring is the right one.")
    return sealer


def open_token_keys(data: Path, *, create: bool) -> TokenKeys:
    """The token keys of a data directory; made at the first start."""
    path = data / TOKENS_FILE
    if create and not path.exists():
        return TokenKeys.create(path, secrets.token_bytes(SECRET_BYTES))
    return TokenKeys.load(path)


async def serve(config: Config, *, on_listening: Callable[[Listening], None]) -> None:
    """Runs the embedded server until SIGTERM or SIGINT, then drains it.

    Raises the errors of a start that is not possible: `DataDirLocked`, `DataDirNewer`,
    `DataDamaged`, `KeyringMissing`, `KeyringWrong`, `AddressInUse` and the like.
    """
    _tune_interpreter()
    clock = SystemClock()
    data = config.data_path
    sealer = open_sealer(data)
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_embedded(data, config.sqlite, clock))
        keys = open_token_keys(data, create=True)
        backbone = Backbone(
            Stores(
                stores.hot,
                stores.tasks,
                stores.cold,
                MemoryCachedTier(clock, config.cached),
                sealer,
                JwtAuthenticator(keys, clock),
                clock,
                secrets.randbits,
            ),
            config.services,
        )
        gateway = Gateway(backbone, config.gateway, clock)
        stopping = asyncio.Event()
        ready = False
        ops_port = await stack.enter_async_context(
            serve_ops(config.ops, backbone.metrics.registry, lambda: ready)
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(backbone.run())
            group.create_task(gateway.run())
            port = await gateway.listen()
            listening = Listening(
                f"ws://{_host(config.gateway.host)}:{port}/v1",
                f"http://{_host(config.ops.host)}:{ops_port}",
                os.getpid(),
            )
            _write_durably(data / SERVER_FILE, msgspec.json.encode(listening))
            ready = True
            _log.info("listening", url=listening.url, ops_url=listening.ops_url)
            on_listening(listening)
            await stopping.wait()
            ready = False
            _log.info("draining", connections=backbone.registry.count)
            (data / SERVER_FILE).unlink(missing_ok=True)
            gateway.stop_accepting()
            backbone.drain()
            await serving
            await gateway.closed_by_peers(config.services.drain_seconds)
            gateway.close()
    _log.info("stopped")


def _tune_interpreter() -> None:
    """Collects seldom, since cycles are rare and the heap is large; never what was there at start.

    Threads that only wait for disks take the interpreter back in half a millisecond.
    """
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _host(host: str) -> str:
    """A host as a local client reaches it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable


def _write_durably(path: Path, content: bytes) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
