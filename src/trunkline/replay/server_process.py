"""Starts the embedded server as a child process that ends with its parent, however that ends."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from trunkline.adapters.node.listening import Listening, find_listening
from trunkline.errors import Internal, TrunklineError, Unreachable, from_code

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_WATCH_SECONDS: Final = 0.2
_LOG_TAIL_BYTES: Final = 4_096


class ServerProcess:
    """A child that runs `trunkline serve` on a data directory.

    Its standard input is a pipe that only this process holds: when this process ends, even
    by SIGKILL, the child reads the end of it and stops by itself.
    """

    def __init__(
        self,
        data: Path,
        *,
        config: Path | None = None,
        port: int = 0,
        ops_port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are environment variables for the child; port 0: any free one."""
        self._data = data
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `_release` closes it
        command = [
            sys.executable, "-m", "trunkline.cli.main", "serve", "--data", str(data),
            "--port", str(port), "--ops-port", str(ops_port), "--log-level", "warning",
            "--until-stdin-closes",
        ]  # fmt: skip
        if config is not None:
            command += ["--config", str(config)]
        with _interrupts_ignored():
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env={**os.environ, **(settings or {})},
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    async def listening(self) -> Listening:
        """Waits until the child takes connections.

        Raises the child's own error if it ends, `Unreachable` if it takes too long.
        """
        for _ in range(int(READY_SECONDS / _POLL_SECONDS)):
            if (found := self._found()) is not None:
                return found
            await asyncio.sleep(_POLL_SECONDS)
        raise Unreachable(f"The server did not listen within {READY_SECONDS:.0f} seconds.")

    async def watch(self) -> None:
        """Runs for as long as the child does; raises its error when it ends by itself."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self.check()

    def check(self) -> None:
        """Raises the child's error if it has ended."""
        if self._child.poll() is not None:
            raise self._error()

    def kill(self) -> None:
        """Pulls the plug: SIGKILL, nothing is flushed, nobody is told."""
        self._child.kill()
        self._child.wait()
        self._release()

    async def stop(self) -> None:
        """Asks the child to drain and waits for it; kills what does not end."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            await asyncio.to_thread(self._child.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        finally:
            self._release()

    def _found(self) -> Listening | None:
        """The child's address, once `server.json` is the child's own and not an older one's."""
        self.check()
        try:
            listening = find_listening(self._data)
        except Unreachable:
            return None
        return listening if listening.pid == self._child.pid else None

    def _error(self) -> TrunklineError:
        """What the child's last words say; the CLI prints errors as `trunkline: code: detail`."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else ""
        name, _, rest = last.partition(": ")
        code, _, detail = rest.partition(": ")
        if name == "trunkline" and detail:
            return from_code(code, detail)
        return Internal(f"The server ended with {self._child.returncode}. {last}")

    def _release(self) -> None:
        self._log.close()
        if self._child.stdin is not None:
            self._child.stdin.close()


class _interrupts_ignored:  # noqa: N801 - reads as the statement that it is
    """While a child is made: it inherits that SIGINT is ignored, until it has a handler.

    Ctrl-C reaches the whole foreground group; a child that is still starting would otherwise
    die of it in the middle of an import.
    """

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)
