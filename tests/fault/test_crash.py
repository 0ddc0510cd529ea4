"""kill -9 of the server at random moments under load: what was acknowledged is there (I1 to I6).

Three rounds in CI, `make fault` for fifty. Every round goes on in the same directory, and
the clients live through all of them.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.client import Client
from trunkline.model import UserId
from trunkline.offline import audit_directory, export_conversation
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(3600)
async def test_what_was_acknowledged_survives_kill_9_under_load(
    tmp_path: Path, rounds: int
) -> None:
    """Given writers without pause, when the server is killed and started again, then every
    acknowledged message stands at its seq, the audit is clean, and all copies are equal."""
    data, port = tmp_path / "data", free_port()
    moments = random.Random(rounds)
    server = ServerProcess(data, port=port, settings=UNLIMITED)
    url = (await server.listening()).url
    keys = TokenKeys.load(data / "tokens.json")

    def token(user: str) -> str:
        return mint(keys, UserId(user), now_ms=_now_ms(), ttl_seconds=DAY_SECONDS)

    entries = 0
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client(
                    url, token=token(user), user=user, endpoint="phone",
                    store=tmp_path / f"{user}.db",
                    reconnect_first_seconds=0.05, reconnect_most_seconds=0.2,
                )
            )
            for user in USERS
        ]  # fmt: skip
        await clients[0].create(GROUP, USERS[1:])
        writers = [
            Writer(client, peer)
            for client, peer in zip(clients, USERS[1:] + USERS[:1], strict=True)
        ]
        for _ in range(rounds):
            before = sum(writer.answers for writer in writers)
            writing = asyncio.gather(*(writer.write_side_by_side(8) for writer in writers))
            await asyncio.sleep(moments.uniform(*ROUND_SECONDS))
            server.kill()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            entries = await asyncio.to_thread(_check, data, writers, entries)
            server = ServerProcess(data, port=port, settings=UNLIMITED)
            await server.listening()
            assert sum(writer.answers for writer in writers) > before, "nothing was tested"
        async with asyncio.timeout(SYNC_SECONDS):
            await _settle(clients)
        proofs = {client.proof(GROUP) for client in clients}
        assert len(proofs) == 1
        assert not any(client.counters.digest_mismatches for client in clients)
    await server.stop()
    await asyncio.to_thread(_check, data, writers, entries)


async def _settle(clients: list[Client]) -> None:
    """Waits until every copy of the group ends at the same seq, outboxes sent."""
    while True:
        for client in clients:
            await client.wait_synced()
            await client.open(GROUP)
        if len({client.proof(GROUP).last for client in clients}) == 1:
            return
        await asyncio.sleep(0.05)


def _check(data: Path, writers: list[Writer], entries_before: int) -> int:
    """Audits the directory and looks up every acknowledged message; returns the entries."""
    report = audit_directory(data)
    assert report.sound, report.findings[:5]
    assert report.counted.entries >= entries_before
    acked: dict[str, dict[int, str]] = {}
    for writer in writers:
        for (conversation, seq), body in writer.acked.items():
            acked.setdefault(conversation, {})[seq] = body
    for conversation, expected in acked.items():
        stored = {line["seq"]: line.get("text") for line in export_conversation(data, conversation)}
        lost = {seq: body for seq, body in expected.items() if stored.get(seq) != body}
        assert not lost, (conversation, sorted(lost.items())[:3])
    return report.counted.entries


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
