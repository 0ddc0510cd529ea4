"""Shows the product at work: real chat into a fresh server that loses power twice meanwhile."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from trunkline.adapters.jwt import TokenKeys
from trunkline.adapters.jwt.tokens import TOKENS_FILE
from trunkline.adapters.node.listening import Listening
from trunkline.errors import AddressInUse
from trunkline.replay.chatfile import ChatFile
from trunkline.replay.driving import minting
from trunkline.replay.result import Result
from trunkline.replay.run import ACKNOWLEDGED, OWN_SERVER_SETTINGS, Plan, Progress, Replay, Target
from trunkline.replay.server_process import ServerProcess

SAMPLE: Final = Path(str(files("trunkline.replay") / "sample.jsonl.gz"))
LOADED_FILE: Final = "demo-loaded"
KILLS: Final = 2
_LOOK_SECONDS: Final = 0.2
_PORTS: Final = range(8480, 8580)
"""Below the ports that the system gives to outgoing connections: one of the many clients that
come back could otherwise be given the very port that the server has just lost."""


class Shown(msgspec.Struct, frozen=True):
    """What was shown. `kills` is 0 where the sample was loaded by an earlier run.

    `watch` runs while the server does, and raises its error when it ends by itself.
    """

    result: Result
    kills: int
    listening: Listening
    watch: Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def demonstration(
    data: Path, chat: ChatFile, random: Random, progress: Progress
) -> AsyncIterator[Shown]:
    """Loads the chat unless it is there, and proves it; the server runs while the context is open.

    Raises what keeps the server from starting, or ends it while it loads.
    """
    server = _PluggedServer(data)
    loaded = data / LOADED_FILE
    try:
        listening = await server.start()
        # Without its metrics: nobody waits here for the archiver, which shows elsewhere.
        target = Target(listening.url, (), own=True)
        token_of = minting(TokenKeys.load(data / TOKENS_FILE))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(server.watch())
            if loaded.exists():
                plan = Plan(sends=False, written_since=True)
                result = await Replay(chat, target, token_of, plan, random, progress).run()
            else:
                cuts = _PowerCuts(server, len(chat.messages), random, progress)
                cutting = tasks.create_task(cuts.run())
                plan = Plan(online=0.5)
                result = await Replay(chat, target, token_of, plan, random, cuts.watch).run()
                await cutting
                if result.is_whole:
                    loaded.touch()
            watching.cancel()
        yield Shown(result, server.kills, listening, server.watch)
    finally:
        await server.stop()


class _PluggedServer:
    """A server process that is started again, on the same ports, after its plug was pulled."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._ports = _free_ports()
        self._process: ServerProcess | None = None
        self._changing = False
        self.kills = 0

    async def start(self) -> Listening:
        port, ops_port = self._ports
        self._process = ServerProcess(
            self._data, port=port, ops_port=ops_port, settings=OWN_SERVER_SETTINGS
        )
        return await self._process.listening()

    async def pull_plug(self) -> None:
        """SIGKILL, and a fresh start."""
        assert self._process is not None
        self._changing = True
        self._process.kill()
        self.kills += 1
        await self.start()
        self._changing = False

    async def watch(self) -> None:
        """Runs while the server does; raises its error when it ends by itself."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._process is not None and not self._changing:
                self._process.check()

    async def stop(self) -> None:
        """Drains the server, if it was ever started."""
        if self._process is not None:
            await self._process.stop()


class _PowerCuts:
    """Pulls the plug at random moments while lines are acknowledged."""

    def __init__(
        self, server: _PluggedServer, lines: int, random: Random, progress: Progress
    ) -> None:
        self._server = server
        self._progress = progress
        share = 1 / KILLS
        moments = [share * (number + 0.3 + 0.4 * random.random()) for number in range(KILLS)]
        self._at_lines = [round(moment * lines) for moment in moments]
        self._acknowledged = 0
        self._moved = asyncio.Event()

    def watch(self, stage: str, done: int, total: int) -> None:
        """Takes the replay's progress, and passes it on."""
        if stage == ACKNOWLEDGED:
            self._acknowledged = done
            self._moved.set()
        self._progress(stage, done, total)

    async def run(self) -> None:
        """Returns after the last cut, with the server up again."""
        for number, lines in enumerate(self._at_lines, 1):
            while self._acknowledged < lines:
                self._moved.clear()
                await self._moved.wait()
            await self._server.pull_plug()
            self._progress("power cuts", number, KILLS)


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on; raises `AddressInUse` if there are none."""
    found: list[int] = []
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise AddressInUse(f"All ports from {_PORTS.start} to {_PORTS.stop - 1} are in use.")
