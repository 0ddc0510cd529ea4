"""Accepting stops while there is no room, without a spin, and goes on when there is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from trunkline.errors import AddressInUse
from trunkline.gateway.acceptor import Acceptor

PATIENCE_SECONDS = 10.0


class Accepted:
    """The connections that were accepted, and whether there is room for more."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.room = True

    def take(self, accepted: socket.socket, address: str) -> None:
        assert address == "127.0.0.1"
        self.sockets.append(accepted)

    async def number(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.sockets) < count:
                await asyncio.sleep(0.005)

    def close_one(self) -> None:
        self.sockets.pop().close()


@pytest.fixture
def accepted() -> Iterator[Accepted]:
    accepted = Accepted()
    yield accepted
    for each in accepted.sockets:
        each.close()


def lowest_free() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


async def listening(accepted: Accepted, most_files: int) -> tuple[Acceptor, int]:
    acceptor = Acceptor(accepted.take, lambda: accepted.room, most_files)
    port = await acceptor.open("127.0.0.1", 0, backlog=64, shared=False)
    acceptor.start()
    return acceptor, port


def connect(port: int, count: int) -> list[socket.socket]:
    clients = [socket.socket() for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
    return clients


async def turns(acceptor: Acceptor, count: int = 20) -> None:
    for _ in range(count):
        acceptor.look()
        await asyncio.sleep(0)


async def test_descriptors_in_reserve_are_not_taken_and_who_waits_is_accepted_later(
    accepted: Accepted,
) -> None:
    clients = [socket.socket() for _ in range(20)]
    most = lowest_free() + 6
    with capture_logs() as logs:
        acceptor, port = await listening(accepted, most)
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        await accepted.number(4)
        await turns(acceptor)
        taken = len(accepted.sockets)
        assert max(each.fileno() for each in accepted.sockets) < most
        await turns(acceptor)
        assert len(accepted.sockets) == taken < 20
        accepted.close_one()
        accepted.close_one()
        await turns(acceptor)
        await accepted.number(taken)
        for client in clients:
            client.close()
    assert [log["event"] for log in logs][:2] == ["accepting_paused", "accepting_resumed"]
    assert len(logs) < 6
    acceptor.close()


async def test_without_any_descriptor_left_accepting_waits(
    accepted: Accepted, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptor, port = await listening(accepted, 1 << 30)
    tries = 0

    def accept(_: socket.socket) -> None:
        nonlocal tries
        tries += 1
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", accept)
        (client,) = connect(port, 1)
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert tries == 1
    await turns(acceptor)
    await accepted.number(1)
    client.close()
    acceptor.close()


async def test_who_finds_no_room_waits_in_the_queue_of_the_kernel(accepted: Accepted) -> None:
    acceptor, port = await listening(accepted, 1 << 30)
    accepted.room = False
    clients = connect(port, 3)
    await turns(acceptor)
    assert not accepted.sockets
    accepted.room = True
    acceptor.room_again()
    await accepted.number(3)
    for client in clients:
        client.close()
    acceptor.close()


async def test_a_port_that_is_taken_is_said_to_be(accepted: Accepted) -> None:
    acceptor, port = await listening(accepted, 1 << 30)
    other = Acceptor(accepted.take, lambda: True, 1 << 30)
    with pytest.raises(AddressInUse):
        await other.open("127.0.0.1", port, backlog=1, shared=False)
    acceptor.close()
