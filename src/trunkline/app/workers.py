"""Keeps the processes of `trunkline serve --workers N` running: workers and the archiver."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from trunkline.adapters.node.listening import Listening, announce, withdraw
from trunkline.app.serving import stop_on_signals
from trunkline.config import Config
from trunkline.errors import AddressInUse

_log = structlog.get_logger("trunkline.workers")
_PAUSE_SECONDS: Final = (0.5, 10.0)
_STEADY_SECONDS: Final = 30.0
_KILL_SECONDS: Final = 15.0


class StartFailed(Exception):
    """A process ended before it was ready; it has said why. `code`: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Process:
    """One child, started again whenever it ends by itself."""

    def __init__(self, name: str, arguments: Sequence[str], settings: dict[str, str]) -> None:
        self._name = name
        self._command = [sys.executable, "-m", "trunkline.cli.main", *arguments]
        self._environment = {**os.environ, **settings}
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> Listening:
        """Starts the child and waits until it is ready; raises `StartFailed`."""
        self._child = child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            # Ctrl-C reaches the whole foreground group: what it means is decided here.
            process_group=0,
        )
        assert child.stdout is not None
        line = await child.stdout.readline()
        if not line:
            raise StartFailed(await child.wait())
        return msgspec.json.decode(line, type=Listening)

    async def keep(self) -> None:
        """Starts the child again whenever it ends; runs until cancelled."""
        pause = _PAUSE_SECONDS[0]
        loop = asyncio.get_running_loop()
        while True:
            assert self._child is not None
            since = loop.time()
            code = await self._child.wait()
            if loop.time() - since > _STEADY_SECONDS:
                pause = _PAUSE_SECONDS[0]
            _log.error("process_ended", process=self._name, code=code, again_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS[1])
            with suppress(StartFailed):
                await self.start()

    async def stop(self, seconds: float) -> None:
        """Asks the child to end, and makes it after so many seconds."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await child.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def run_workers(
    config: Config,
    arguments: Sequence[str],
    *,
    workers: int,
    archiver: bool,
    on_listening: Callable[[Listening], None],
) -> None:
    """Runs `workers` serving processes on one port, and an archiver, until SIGTERM or SIGINT.

    `arguments` say where the children find their settings. Raises `AddressInUse`,
    `StartFailed`.
    """
    stopping = stop_on_signals()
    with _reserved(config.gateway.host, config.gateway.port) as port:
        address = {
            "TRUNKLINE_GATEWAY__HOST": config.gateway.host,
            "TRUNKLINE_GATEWAY__PORT": str(port),
            "TRUNKLINE_OPS__HOST": config.ops.host,
        }
        children = [
            Process(
                f"worker {number}",
                ["serve", "--as-worker", "--until-stdin-closes", *arguments],
                address | {"TRUNKLINE_OPS__PORT": _ops(config, number)},
            )
            for number in range(workers)
        ]
        if archiver:
            children.append(
                Process(
                    "archiver",
                    ["archiver", "--json", "--until-stdin-closes", *arguments],
                    address | {"TRUNKLINE_OPS__PORT": _ops(config, workers)},
                )
            )
        try:
            found = await asyncio.gather(*(child.start() for child in children))
            listening = Listening(
                found[0].url, found[0].ops_url, os.getpid(), tuple(f.ops_url for f in found)
            )
            announce(config.data_path, listening)
            on_listening(listening)
            async with asyncio.TaskGroup() as group:
                keeping = [group.create_task(child.keep()) for child in children]
                await stopping.wait()
                withdraw(config.data_path)
                for task in keeping:
                    task.cancel()
        finally:
            seconds = config.services.drain_seconds + _KILL_SECONDS
            await asyncio.gather(*(child.stop(seconds) for child in children))


def _ops(config: Config, number: int) -> str:
    return str(config.ops.port + number if config.ops.port else 0)


class _reserved:  # noqa: N801 - reads as the statement that it is
    """Keeps a port for the workers, who share it; nobody else may have it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def __enter__(self) -> int:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                port = int(probe.getsockname()[1])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"{host}:{port} is in use: choose another port.") from None
            raise
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, port))
        return port

    def __exit__(self, *_: object) -> None:
        assert self._socket is not None
        self._socket.close()
