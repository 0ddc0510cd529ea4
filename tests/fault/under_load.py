"""Clients that write without pause while their server is torn down, again and again."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.app.offline import audit_directory, export_conversation
from trunkline.client import Client
from trunkline.model import UserId
from trunkline.replay.server_process import ServerProcess

USERS = [f"user{number}" for number in range(6)]
GROUP = "everyone"
ROUND_SECONDS = (0.2, 1.5)
SYNC_SECONDS = 60.0
DAY_SECONDS = 86_400.0
UNLIMITED = {
    "TRUNKLINE_SERVICES__SENDS_PER_SECOND": "1000000",
    "TRUNKLINE_SERVICES__SEND_BURST": "1000000",
    "TRUNKLINE_SERVICES__NEWEST_GROUP": "100",
    "TRUNKLINE_SERVICES__NEWEST_SINGLE": "20",
}


class Writer:
    """Sends without pause, and remembers what was acknowledged."""

    def __init__(self, client: Client, peer: str) -> None:
        self.client = client
        self.peer = peer
        self.acked: dict[tuple[str, int], str] = {}
        self.answers = 0

    async def write(self) -> None:
        number = 0
        while True:
            number += 1
            body = f"{self.client.user} says {number}"
            if number % 2:
                sent = await self.client.send(GROUP, body)
            else:
                sent = await self.client.send_to(self.peer, body)
            assert self.acked.setdefault((sent.conversation, sent.seq), body) == body
            self.answers += 1

    async def write_side_by_side(self, senders: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(senders):
                tasks.create_task(self.write())


class UnderLoad:
    """A server on a directory and six users' clients, which live through all of its crashes."""

    def __init__(self, data: Path, stores: Path, seed: int) -> None:
        """`stores`: where the clients keep their copies."""
        self.data = data
        self._stores = stores
        self._moments = random.Random(seed)
        self._port = free_port()
        self._entries = 0
        self._writers: list[Writer] = []
        self._stack = AsyncExitStack()
        self._server = self._start()

    async def __aenter__(self) -> Self:
        url = (await self._server.listening()).url
        keys = TokenKeys.load(self.data / "tokens.json")
        now_ms = time.time_ns() // 1_000_000
        for user, peer in zip(USERS, USERS[1:] + USERS[:1], strict=True):
            client = Client(
                url, token=mint(keys, UserId(user), now_ms=now_ms, ttl_seconds=DAY_SECONDS),
                user=user, endpoint="phone", store=self._stores / f"{user}.db",
                reconnect_first_seconds=0.05, reconnect_most_seconds=0.2,
            )  # fmt: skip
            self._writers.append(Writer(await self._stack.enter_async_context(client), peer))
        await self._writers[0].client.create(GROUP, USERS[1:])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        await self._server.stop()

    async def round(self, cut: Callable[[ServerProcess], None]) -> None:
        """Writes for a while, calls `cut` in the middle of it, checks, starts the server again.

        `cut` leaves the server dead and the directory readable.
        """
        before = sum(writer.answers for writer in self._writers)
        writing = asyncio.gather(*(writer.write_side_by_side(8) for writer in self._writers))
        await asyncio.sleep(self._moments.uniform(*ROUND_SECONDS))
        cut(self._server)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await self.check()
        self._server = self._start()
        await self._server.listening()
        assert sum(writer.answers for writer in self._writers) > before, "nothing was tested"

    async def converge(self) -> None:
        """Waits until every copy of the group ends at the same seq, outboxes sent: all equal."""
        clients = [writer.client for writer in self._writers]
        async with asyncio.timeout(SYNC_SECONDS):
            while True:
                for client in clients:
                    await client.wait_synced()
                    await client.open(GROUP)
                if len({client.proof(GROUP).last for client in clients}) == 1:
                    break
                await asyncio.sleep(0.05)
        assert len({client.proof(GROUP) for client in clients}) == 1
        assert not any(client.counters.digest_mismatches for client in clients)

    async def check(self) -> None:
        """Audits the directory at rest and looks up every acknowledged message."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        report = audit_directory(self.data)
        assert report.sound, report.findings[:5]
        assert report.counted.entries >= self._entries
        self._entries = report.counted.entries
        acked: dict[str, dict[int, str]] = {}
        for writer in self._writers:
            for (conversation, seq), body in writer.acked.items():
                acked.setdefault(conversation, {})[seq] = body
        for conversation, expected in acked.items():
            lines = export_conversation(self.data, conversation)
            stored = {line["seq"]: line.get("text") for line in lines}
            lost = {seq: body for seq, body in expected.items() if stored.get(seq) != body}
            assert not lost, (conversation, sorted(lost.items())[:3])

    def _start(self) -> ServerProcess:
        return ServerProcess(self.data, port=self._port, settings=UNLIMITED)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
