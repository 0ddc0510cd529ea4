"""A data directory that was restored, copied or begun anew: every endpoint is told, and heals."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio
from directory_server import DirectoryServer

from trunkline.app.offline import audit_directory
from trunkline.client import Client, MemoryStore, Message
from trunkline.errors import EntriesLost, StoreReplaced, StoreRestored, TrunklineError
from trunkline.model import ConversationId, Kind


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[DirectoryServer]:
    made = DirectoryServer(tmp_path / "data")
    await made.start()
    yield made
    await made.stop()


class Device:
    """An endpoint with a local store that outlives its runs, and what it was told."""

    def __init__(self, server: DirectoryServer, user: str, endpoint: str = "phone") -> None:
        self.server, self.user, self.endpoint = server, user, endpoint
        self.store = MemoryStore()
        self.reports: list[TrunklineError] = []

    def client(self, **options: Any) -> Client:
        return self.server.client(
            self.user, self.endpoint, store=self.store, report=self.reports.append, **options
        )

    def lost(self) -> dict[str, list[str]]:
        """Bodies of what was reported as lost, by conversation."""
        return {
            error.conversation: [entry.body for entry in error.entries]
            for error in self.reports
            if isinstance(error, EntriesLost)
        }


async def say(server: DirectoryServer, conversation: str, *bodies: str, user: str = "ann") -> int:
    """Sends from an endpoint without copies; returns the last seq."""
    async with server.client(user, "sender", push=False) as client:
        for body in bodies:
            seq = (await client.send(conversation, body)).seq
    return seq


async def create(server: DirectoryServer, conversation: str, *users: str) -> None:
    async with server.client("ann", "sender", push=False) as client:
        await client.create(conversation, users)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def visit(device: Device, *, proven: str = "") -> Client:
    """A run of the device, until it is in step; `proven`: this must be confirmed, with proof."""
    async with device.client() as client:
        await client.wait_synced()
        if proven:
            held = client._endpoint.replica.held[ConversationId(proven)]
            await until(lambda: held.proved == held.head)
            await client.wait_synced()
        info = {c.conversation: c for c in client.conversations()}
        for name, one in info.items():
            if not one.left:
                await client.open(name)
    return client


async def bodies(client: Client, conversation: str) -> list[str]:
    history = await client.history(conversation)
    assert [m.seq for m in history] == list(range(1, len(history) + 1))
    return [m.body if m.kind is Kind.MESSAGE else str(m.kind) for m in history]


async def assert_in_step(server: DirectoryServer, clients: dict[str, Client], name: str) -> None:
    """All copies are equal, and equal to that of an endpoint that begins anew (I14)."""
    async with server.client("bob", "fresh") as fresh:
        await fresh.wait_synced()
        proof = fresh.proof(name)
        for user, client in clients.items():
            await client.open(name)
            assert client.proof(name) == proof, user


async def test_an_endpoint_that_is_ahead_after_a_restore_heals_and_tells_what_was_lost(
    server: DirectoryServer, tmp_path: Path
) -> None:
    bob = Device(server, "bob")
    await create(server, "g", "bob", "eve")
    await say(server, "g", "old 1", "old 2")
    await server.stop()
    server.back_up(tmp_path / "backup")
    await server.start()
    await say(server, "g", "gone 1", "gone 2")
    async with bob.client() as client:
        await client.wait_synced()
        own = await client.send("g", "gone, of bob")
        held = client._endpoint.replica.held[ConversationId("g")]
        await until(lambda: held.proved == own.seq)
    await server.stop()
    server.restore(tmp_path / "backup")
    await server.start()
    read: list[Message] = []
    async with bob.client() as client:

        async def reading() -> None:
            read.extend([message async for message in client.messages()])

        task = asyncio.create_task(reading())
        await client.wait_synced()
        new = await say(server, "g", "new 1")
        assert new == own.seq + 1  # I3: nobody sees an id twice
        await until(lambda: client.conversation("g").last == new)
        assert await bodies(client, "g") == [
            "created", "old 1", "old 2", "lost", "lost", "lost", "new 1",
        ]  # fmt: skip
        assert bob.lost() == {"g": ["gone 1", "gone 2", "gone, of bob"]}
        assert StoreRestored in {type(error) for error in bob.reports}
        (apart,) = await client.set_apart()
        assert [m.body for m in await client.read_apart(apart)] == bob.lost()["g"]
        again = await client.send("g", "gone, of bob")
        assert again.seq == new + 1
        await assert_in_step(server, {"bob": client}, "g")
        assert client.counters.set_apart == 3
        task.cancel()
    assert server.backbone.metrics.endpoints_ahead._value.get() == 1
    before = len(bob.reports)
    async with bob.client() as client:  # told once
        await client.wait_synced()
        assert len(bob.reports) == before
    await server.stop()
    report = await asyncio.to_thread(audit_directory, server.data)
    assert report.findings == ()
    await server.start()


async def test_two_endpoints_that_are_ahead_differently_end_equal(
    server: DirectoryServer, tmp_path: Path
) -> None:
    bob, eve = Device(server, "bob"), Device(server, "eve")
    await create(server, "g", "bob", "eve")
    await server.stop()
    server.back_up(tmp_path / "backup")
    await server.start()
    await say(server, "g", "gone 1")
    await visit(bob, proven="g")
    await say(server, "g", "gone 2", "gone 3")
    await visit(eve, proven="g")
    await server.stop()
    server.restore(tmp_path / "backup")
    await server.start()
    async with bob.client() as one:
        await one.wait_synced()
        await say(server, "g", "new 1")
        async with eve.client() as other:
            await other.wait_synced()
            await say(server, "g", "new 2")
            await until(lambda: other.conversation("g").last == one.conversation("g").last == 5)
            assert (await bodies(one, "g"))[:4] == ["created", "lost", "new 1", "lost"]
            await assert_in_step(server, {"bob": one, "eve": other}, "g")
    assert bob.lost() == {"g": ["gone 1"]}
    assert eve.lost() == {"g": ["gone 1", "gone 2", "gone 3"]}


async def test_an_endpoint_that_holds_as_much_but_other_entries_heals(
    server: DirectoryServer, tmp_path: Path
) -> None:
    """Others wrote to the restored store before it came back: its head tells nothing."""
    bob = Device(server, "bob")
    await create(server, "g", "bob", "eve")
    await server.stop()
    server.back_up(tmp_path / "backup")
    await server.start()
    await say(server, "g", "gone 1", "gone 2")
    await visit(bob)
    await server.stop()
    server.restore(tmp_path / "backup")
    await server.start()
    await say(server, "g", "new 1", "new 2")
    read: list[str] = []
    async with bob.client() as client:

        async def reading() -> None:
            read.extend([m.body async for m in client.messages()])

        task = asyncio.create_task(reading())
        await client.wait_synced()
        await until(lambda: client.counters.set_apart == 2)
        assert await bodies(client, "g") == ["created", "new 1", "new 2"]
        assert client.conversation("g").unread == 2
        await assert_in_step(server, {"bob": client}, "g")
        task.cancel()
    assert bob.lost() == {"g": ["gone 1", "gone 2"]}


async def test_a_conversation_that_is_begun_anew_after_a_restore_goes_on_from_its_start(
    server: DirectoryServer, tmp_path: Path
) -> None:
    bob = Device(server, "bob")
    await create(server, "other", "bob")
    await server.stop()
    server.back_up(tmp_path / "backup")
    await server.start()
    await create(server, "g", "bob", "eve")
    await say(server, "g", "gone 1", "gone 2")
    await visit(bob)
    await server.stop()
    server.restore(tmp_path / "backup")
    await server.start()
    read: list[str] = []
    async with bob.client() as client:

        async def reading() -> None:
            async for message in client.messages():
                read.append(message.body)  # noqa: PERF401 - each as it comes

        task = asyncio.create_task(reading())
        await client.wait_synced()
        assert client.conversation("g").left
        await create(server, "g", "bob", "eve")
        await say(server, "g", "new 1", "new 2", "new 3")
        await until(lambda: client.conversation("g").last == 4)
        assert await bodies(client, "g") == ["created", "new 1", "new 2", "new 3"]
        await until(lambda: len(read) == 3)
        await assert_in_step(server, {"bob": client}, "g")
        (apart,) = await client.set_apart()
        assert [m.body for m in await client.read_apart(apart)][1:] == ["gone 1", "gone 2"]
        task.cancel()
    assert read == ["new 1", "new 2", "new 3"]


async def test_the_first_endpoint_that_is_ahead_begins_a_generation_where_nobody_could_know(
    server: DirectoryServer, tmp_path: Path
) -> None:
    """As after a virtual machine's snapshot: the directory itself shows nothing."""
    bob = Device(server, "bob")
    await create(server, "g", "bob", "eve")
    await say(server, "g", "old")
    await server.stop()
    server.back_up(tmp_path / "backup")
    await server.start()
    await say(server, "g", "gone 1", "gone 2")
    await visit(bob, proven="g")
    before = server.stores.identity.life
    await server.stop()
    shutil.rmtree(server.data)
    (tmp_path / "backup").rename(server.data)
    (server.data / "witness").unlink()
    await server.start()
    server.stores.identity._directory._write(before)
    async with bob.client() as client:
        await client.wait_synced()
        await client.send("g", "bob goes on")
        client.drop_connection()
        await until(lambda: server.stores.identity.life.generation == before.generation + 1)
        await until(lambda: bob.lost() != {})
        await say(server, "g", "new")
        await client.wait_synced()
        await assert_in_step(server, {"bob": client}, "g")
    assert bob.lost()["g"][:2] == ["gone 1", "gone 2"]


async def test_a_fresh_directory_is_another_store(server: DirectoryServer, tmp_path: Path) -> None:
    bob = Device(server, "bob")
    await create(server, "g", "bob", "eve")
    await say(server, "g", "of the first")
    await visit(bob)
    await server.stop()
    shutil.rmtree(server.data)
    await server.start()
    await create(server, "g", "bob")
    await say(server, "g", "of the second")
    async with bob.client() as client:
        await client.wait_synced()
        assert await bodies(client, "g") == ["created", "of the second"]
        assert [type(error) for error in bob.reports] == [StoreReplaced]
        assert [a.conversation for a in await client.set_apart()] == ["g"]


async def test_nobody_raises_ids_without_proof(server: DirectoryServer, tmp_path: Path) -> None:
    """A member knows the digest key, its own proofs, and those of other conversations."""
    await create(server, "g", "bob", "eve")
    await create(server, "h", "bob", "eve")
    last = await say(server, "g", "1")
    await say(server, "h", "1", "2", "3", "4", "5")
    bob = Device(server, "bob")
    async with bob.client() as client:
        await client.wait_synced()
        replica = client._endpoint.replica
        await until(lambda: replica.held[ConversationId("h")].proved == 6)
        await until(lambda: replica.held[ConversationId("g")].proved == 2)
        other, own = (replica.held[ConversationId(name)].proof for name in ("h", "g"))
    life = server.stores.identity.life
    hostile = await foreign(server, "bob")
    for seq, proof in ((6, other), (6, own), (2**53 - 1, ""), (6, "é"), (6, "0" * 32)):
        answer = await hostile.ask(
            "ahead", request=seq % 1000, mark=life.mark, claims={"g": {"seq": seq, "proof": proof}}
        )
        (changed,) = answer["conversations"]
        assert changed["head"] == last
    outsider = await foreign(server, "mallory")
    answer = await outsider.ask(
        "ahead", request=1, mark=life.mark, claims={"g": {"seq": 6, "proof": other}}
    )
    assert "conversations" not in answer
    assert server.stores.identity.life == life
    assert await say(server, "g", "2") == last + 1
    for one in (hostile, outsider):
        await one.socket.close()


async def foreign(server: DirectoryServer, user: str) -> Any:
    from foreign_client import ForeignClient
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    socket = await connect(server.url, subprotocols=[Subprotocol("trunkline.json")], proxy=None)
    client = ForeignClient(socket, binary=False)
    await client.send("hello", token=server.token(user), endpoint="e1", push=False)
    await client.until("welcome")
    return client
