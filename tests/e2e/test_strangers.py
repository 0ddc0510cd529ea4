"""Who has not said `hello` costs little, and so do pings, parts and fragments of who has."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from foreign_client import PATIENCE_SECONDS, Server, Undisturbed
from raw_socket import BINARY, CONTINUATION, HANDSHAKE, PING, PONG, RawSocket, frame, hello

from trunkline.wire.close import Close

MEBIBYTE = 1 << 20


def strangers(server: Server) -> float:
    value = server.backbone.metrics.registry.get_sample_value("trunkline_strangers")
    assert value is not None
    return value


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def welcomed(server: Server, user: str) -> RawSocket:
    client = await RawSocket.open(server.port)
    assert await client.status() == 101
    client.writer.write(hello(server.token(user)))
    assert (await client.receive())[0] == BINARY
    return client


# --- pings ------------------------------------------------------------------------------


async def test_of_pings_that_come_together_the_latest_is_answered(server: Server) -> None:
    client = await RawSocket.open(server.port)
    assert await client.status() == 101
    client.writer.write(b"".join(frame(PING, b"%d" % number) for number in range(5)))
    assert await client.receive() == (PONG, b"4")
    client.close()


@pytest.mark.parametrize("says_hello", [False, True])
async def test_who_pings_without_end_is_closed(server: Server, says_hello: bool) -> None:
    async with Undisturbed(server):
        client = await RawSocket.open(server.port)
        assert await client.status() == 101
        if says_hello:
            client.writer.write(hello(server.token("mallory")))
        client.writer.write(frame(PING, b"p" * 125) * 500)
        assert await client.close_code() == Close.FLOODING
        client.close()


async def test_no_pong_waits_for_who_does_not_read(start_server: Any) -> None:
    server = await start_server(gateway={"pings_per_second": 1e9})
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", server.port))
    await loop.sock_sendall(deaf, HANDSHAKE)
    pings = frame(PING, b"p" * 125) * 1_000
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(60):
            await loop.sock_sendall(deaf, pings)
    (held,) = server.gateway.sockets
    assert held.waiting_bytes < 64 * 1024
    deaf.close()


# --- before hello -----------------------------------------------------------------------


async def test_connections_before_hello_are_counted(server: Server) -> None:
    silent = [await RawSocket.open(server.port) for _ in range(3)]
    await until(lambda: strangers(server) == 3)
    silent[0].writer.write(hello(server.token("alice")))
    await until(lambda: strangers(server) == 2)
    for client in silent:
        client.close()
    await until(lambda: strangers(server) == 0)


@pytest.mark.parametrize("fin", [True, False])
async def test_a_stranger_s_frame_of_more_than_16_kib_is_not_kept(
    server: Server, fin: bool
) -> None:
    async with Undisturbed(server):
        client = await RawSocket.open(server.port)
        assert await client.status() == 101
        client.writer.write(frame(BINARY, b"x" * 100_000, fin=fin)[:-1])
        assert await client.close_code() == Close.FRAME_TOO_LARGE
        assert server.gateway.incoming.total_bytes == 0
        client.close()


async def test_a_stranger_s_message_in_many_fragments_is_no_frame(server: Server) -> None:
    async with Undisturbed(server):
        client = await RawSocket.open(server.port)
        assert await client.status() == 101
        client.writer.write(frame(BINARY, b"x", fin=False))
        client.writer.write(frame(CONTINUATION, b"x", fin=False) * 20)
        assert await client.close_code() == Close.BAD_FRAME
        client.close()


async def test_hello_and_a_large_frame_right_behind_it_are_served(server: Server) -> None:
    client = await RawSocket.open(server.port)
    assert await client.status() == 101
    vector = {f"c{number:05}": 1 for number in range(10_000)}
    sync = msgspec.msgpack.encode({"t": "sync", "request": 1, "vector": vector})
    client.writer.write(hello(server.token("alice")) + frame(BINARY, sync))
    answers = [msgspec.msgpack.decode((await client.receive())[1])["t"] for _ in range(2)]
    assert answers == ["welcome", "synced"]
    client.close()


async def test_a_head_that_trickles_ends_with_the_time_for_hello(start_server: Any) -> None:
    server = await start_server(hello_seconds=0.2)
    client = await RawSocket.open(server.port, HANDSHAKE[:40])
    await client.gone()
    assert strangers(server) == 0
    client.close()


async def test_an_address_has_so_many_strangers_and_no_more(start_server: Any) -> None:
    server = await start_server(gateway={"strangers_per_address": 2})
    silent = [await RawSocket.open(server.port) for _ in range(2)]
    assert [await client.status() for client in silent] == [101, 101]
    refused = await RawSocket.open(server.port)
    await refused.gone()
    silent[0].writer.write(hello(server.token("alice")))
    assert (await silent[0].receive())[0] == BINARY
    async with Undisturbed(server):
        for client in (*silent, refused):
            client.close()


async def test_who_had_time_to_greet_makes_room_for_who_comes(start_server: Any) -> None:
    server = await start_server(gateway={"strangers": 2})
    silent = [await RawSocket.open(server.port) for _ in range(2)]
    assert [await client.status() for client in silent] == [101, 101]
    late = await welcomed(server, "alice")
    await silent[0].gone()
    for client in (late, *silent):
        client.close()


# --- parts ------------------------------------------------------------------------------


async def test_between_two_frames_a_connection_holds_no_buffer(server: Server) -> None:
    client = await welcomed(server, "alice")
    (held,) = server.gateway.sockets
    large = frame(BINARY, b"\xc1" + b"x" * (MEBIBYTE - 2))
    client.writer.write(large[:-1])
    await until(lambda: server.gateway.incoming.total_bytes == len(large) - 1)
    client.writer.write(large[-1:])
    assert await client.close_code() == Close.BAD_FRAME
    assert held._parser is None
    assert server.gateway.incoming.total_bytes == 0
    assert server.gateway.parsers.spare.is_fresh
    client.close()


async def test_parts_of_all_clients_are_bounded_and_the_oldest_goes_first(
    start_server: Any,
) -> None:
    server = await start_server(gateway={"inlets_bytes": MEBIBYTE})
    async with Undisturbed(server):
        slow, other = await welcomed(server, "slow"), await welcomed(server, "other")
        sync = {"t": "sync", "request": 1, "next": "x" * 700_000}
        large = frame(BINARY, msgspec.msgpack.encode(sync))
        slow.writer.write(large[:-1])
        await until(lambda: server.gateway.incoming.total_bytes == len(large) - 1)
        other.writer.write(large)
        assert await slow.close_code() == Close.OVERLOADED
        assert msgspec.msgpack.decode((await other.receive())[1])["t"] == "error"
        slow.close()
        other.close()


async def test_a_message_of_very_many_fragments_is_no_frame(server: Server) -> None:
    client = await welcomed(server, "alice")
    client.writer.write(frame(BINARY, b"x", fin=False))
    client.writer.write(frame(CONTINUATION, b"x", fin=False) * 2_000)
    assert await client.close_code() == Close.BAD_FRAME
    client.close()
