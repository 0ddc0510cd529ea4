"""Clients that write without pause while their server is torn down, again and again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from crowd import Crowd
from redis_server import free_port

from trunkline.adapters.jwt import TokenKeys
from trunkline.app.offline import audit_directory, export_conversation
from trunkline.replay.server_process import ServerProcess

ROUND_SECONDS = (0.2, 1.5)
UNLIMITED = {
    "TRUNKLINE_SERVICES__SENDS_PER_SECOND": "1000000",
    "TRUNKLINE_SERVICES__SEND_BURST": "1000000",
    "TRUNKLINE_SERVICES__NEWEST_GROUP": "100",
    "TRUNKLINE_SERVICES__NEWEST_SINGLE": "20",
}


class UnderLoad:
    """A server on a directory and six users' clients, which live through all of its crashes."""

    def __init__(self, data: Path, stores: Path, seed: int) -> None:
        """`stores`: where the clients keep their copies."""
        self.data = data
        self._moments = random.Random(seed)
        self._port = free_port()
        self._entries = 0
        self._crowd = Crowd(stores)
        self._server = self._start()

    async def __aenter__(self) -> Self:
        url = (await self._server.listening()).url
        await self._crowd.connect(url, TokenKeys.load(self.data / "tokens.json"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._crowd.__aexit__(kind, error, trace)
        await self._server.stop()

    async def round(self, cut: Callable[[ServerProcess], None]) -> None:
        """Writes for a while, calls `cut` in the middle of it, checks, starts the server again.

        `cut` leaves the server dead and the directory readable.
        """
        before = self._crowd.acked
        writers = self._crowd.writers
        writing = asyncio.gather(*(writer.write_side_by_side(8) for writer in writers))
        await asyncio.sleep(self._moments.uniform(*ROUND_SECONDS))
        cut(self._server)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await self.check()
        self._server = self._start()
        await self._server.listening()
        assert self._crowd.acked > before, "nothing was tested"

    async def converge(self) -> None:
        """Waits until all copies are equal."""
        await self._crowd.converge()

    async def check(self) -> None:
        """Audits the directory at rest and looks up every acknowledged message."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        report = audit_directory(self.data)
        assert report.sound, report.findings[:5]
        assert report.counted.entries >= self._entries
        self._entries = report.counted.entries
        for conversation in self._crowd.ledger.acked:
            lines = export_conversation(self.data, conversation)
            stored = {line["seq"]: line.get("text") for line in lines}
            self._crowd.ledger.check(conversation, stored)

    def _start(self) -> ServerProcess:
        return ServerProcess(self.data, port=self._port, settings=UNLIMITED)
