"""Peers that read too slowly, say nothing, or are gone without a word; and a server that goes."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import msgspec
from foreign_client import PATIENCE_SECONDS, Server, Undisturbed
from raw_socket import HANDSHAKE, hello
from websockets.frames import Opcode

from trunkline.model import UserId

BODY = "x" * 10_000


async def test_who_never_says_hello_is_closed(start_server: Any) -> None:
    server = await start_server(hello_seconds=0.2)
    async with Undisturbed(server):
        client = await server.dial()
        frames, close = await client.end()
        assert [frame["t"] for frame in frames] == ["goodbye"]
        assert (frames[0]["code"], close) == ("wrong_order", 4001)


async def test_a_half_open_connection_is_closed_by_the_heartbeat(start_server: Any) -> None:
    server = await start_server(heartbeat_seconds=0.4)
    async with Undisturbed(server):
        client = await server.connect("alice")
        client.socket.protocol.receive_data = lambda _: None  # type: ignore[method-assign]
        await server.without("alice")


async def test_who_reads_but_answers_no_ping_is_told_so(start_server: Any) -> None:
    server = await start_server(heartbeat_seconds=0.4)
    client = await server.connect("alice")
    say = client.socket.protocol.send_frame
    client.socket.protocol.send_frame = lambda f: None if f.opcode is Opcode.PONG else say(f)
    frames, close = await client.end()
    assert (frames, close) == ([], 4102)


async def test_who_is_idle_but_answers_pings_stays(start_server: Any) -> None:
    server = await start_server(heartbeat_seconds=0.1)
    client = await server.connect("alice")
    say = client.socket.protocol.send_frame
    pongs = asyncio.Semaphore(0)

    def count(frame: Any) -> None:
        say(frame)
        if frame.opcode is Opcode.PONG:
            pongs.release()

    client.socket.protocol.send_frame = count
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(4):
            await pongs.acquire()
    assert (await client.ask("send", id="1", to="bob", body="here"))["seq"] == 2


async def test_a_slow_reader_is_closed_with_its_code_once_it_reads(start_server: Any) -> None:
    server = await start_server(gateway={"outlet_bytes": 256 * 1024}, send_burst=10_000)
    async with Undisturbed(server):
        alice = await server.connect("alice")
        # The library stops reading the socket once its own queue is full.
        slow = await server.connect("slow", max_queue=1)
        (held,) = [s for s in server.gateway.sockets if s._session._connection.user == "slow"]
        most = 0
        for number in range(1_500):
            await alice.ask("send", id=str(number), to="slow", body=BODY)
            if held._closing is not None:
                break
            if held._transport is not None:
                waiting = held.waiting_bytes
                most = max(most, waiting)
        assert held._closing is not None
        assert 0 < most <= 256 * 1024 + len(BODY) + 1_000
        frames, close = await slow.end()
        assert close == 4100
        seqs = [e["seq"] for f in frames if f["t"] == "push" for e in f["entries"]]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_slow_reader_that_never_reads_again_is_dropped(start_server: Any) -> None:
    server = await start_server(gateway={"outlet_bytes": 256 * 1024}, send_burst=10_000)
    async with Undisturbed(server):
        alice = await server.connect("alice")
        await server.connect("slow", max_queue=1)
        for number in range(1_500):
            await alice.ask("send", id=str(number), to="slow", body=BODY)
            if server.backbone.metrics.registry.get_sample_value(
                "trunkline_connections_closed_total", {"code": "slow_reader"}
            ):
                break
        await server.without("slow")


async def deaf(server: Server, user: str) -> socket.socket:
    """A connection whose kernel takes little, and which reads only what the test reads."""
    loop = asyncio.get_running_loop()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)
    await loop.sock_connect(deaf, ("127.0.0.1", server.port))
    await loop.sock_sendall(deaf, HANDSHAKE + hello(server.token(user)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (connections := list(server.backbone.registry.of_user(UserId(user)))):
            await asyncio.sleep(0.005)
    kernel: Any = connections[0].outlet
    kernel = kernel._transport.get_extra_info("socket")
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    return deaf


async def test_slow_readers_are_bounded_in_sum_and_the_laziest_goes_first(
    start_server: Any,
) -> None:
    server = await start_server(gateway={"outlets_bytes": 1 << 20}, send_burst=10_000)
    async with Undisturbed(server):
        alice = await server.connect("alice")
        users = ["d1", "d2", "d3"]
        await alice.ask("create", id="made", conversation="g", users=users)
        held = [await deaf(server, user) for user in users]
        closed = server.backbone.metrics.closed.labels("slow_reader")
        for number in range(1_500):
            if closed._value.get():
                break
            await alice.ask("send", id=str(number), conversation="g", body=BODY)
            assert server.gateway.outgoing.total_bytes <= 1 << 20
        assert closed._value.get()
        assert len(server.gateway.outgoing) == 2
        for each in held:
            each.close()
        for user in users:
            await server.without(user)
        assert server.gateway.outgoing.total_bytes == 0


async def test_who_takes_what_waits_however_slowly_is_alive(start_server: Any) -> None:
    server = await start_server(heartbeat_seconds=0.6)
    alice = await server.connect("alice")
    slow = await deaf(server, "slow")
    (held,) = [s for s in server.gateway.sockets if s._session._connection.user == "slow"]
    for number in range(100):
        await alice.send("send", id=str(number), to="slow", body=BODY)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while loop.time() - begin < 1.8:
        await loop.sock_recv(slow, 4_096)
        assert held._closing is None
        await asyncio.sleep(0.02)
    assert held.waiting_bytes > 0
    slow.close()


async def test_pages_grow_on_a_link_that_takes_them(server: Server) -> None:
    alice = await server.connect("alice")
    for number in range(80):
        await alice.ask("send", id=str(number), to="bob", body=BODY)
    bob = await server.connect("bob", subprotocol="trunkline.msgpack")
    asked: dict[str, Any] = {"ranges": [{"conversation": "single:5:alice3:bob", "after": 0}]}
    sizes: list[int] = []
    seqs: list[int] = []
    while asked:
        await bob.send("pull", request=1, **asked)
        message = await bob.socket.recv()
        pulled = msgspec.msgpack.decode(message)
        seqs += [entry["seq"] for run in pulled["runs"] for entry in run["entries"]]
        sizes.append(len(message))
        asked = {"next": pulled["next"]} if pulled.get("next") else {}
    assert seqs == list(range(1, 82))
    assert sizes[0] <= 64 * 1024 + 1_000 < sizes[1]


async def test_one_who_asks_for_much_and_reads_nothing_is_answered_no_faster_than_it_reads(
    start_server: Any,
) -> None:
    server = await start_server(send_burst=10_000, open_requests=500)
    async with Undisturbed(server):
        alice = await server.connect("alice")
        for number in range(200):
            await alice.ask("send", id=str(number), to="bob", body=BODY)
        greedy = await server.connect("alice", endpoint="greedy", max_queue=1)
        (held,) = [s for s in server.gateway.sockets if s._session._connection.endpoint == "greedy"]
        ranges = [{"conversation": "single:5:alice3:bob", "after": 0}]
        for request in range(1, 401):
            await greedy.send("pull", request=request, ranges=ranges)
        await alice.ask("pull", request=1, ranges=ranges)
        assert held._transport is not None
        waiting = held.waiting_bytes
        assert waiting < server.gateway.settings.outlet_pause_bytes + (2 << 20)
        answers = {(await greedy.receive())["request"] for _ in range(400)}
        assert answers == set(range(1, 401))


async def test_bodies_that_are_long_in_json_keep_nobody_from_reading(server: Server) -> None:
    mallory = await server.connect("mallory", subprotocol="trunkline.msgpack")
    for number in range(80):
        await mallory.ask("send", id=str(number), to="bob", body="\0" * server.settings.body_bytes)
    bob = await server.connect("bob")
    asked: dict[str, Any] = {"ranges": [{"conversation": "single:3:bob7:mallory", "after": 0}]}
    seqs: list[int] = []
    while asked:
        await bob.send("pull", request=1, **asked)
        message = await bob.socket.recv()
        assert len(message) < 2 * server.settings.page_bytes
        pulled = json.loads(message)
        seqs += [entry["seq"] for run in pulled["runs"] for entry in run["entries"]]
        asked = {"next": pulled["next"]} if pulled.get("next") else {}
    assert seqs == list(range(1, 82))


async def test_many_long_bodies_in_one_commit_are_pushed_in_frames_of_bounded_size(
    server: Server,
) -> None:
    mallory = await server.connect("mallory", subprotocol="trunkline.msgpack")
    await mallory.ask("create", id="made", conversation="g", users=["bob"])
    bob = await server.connect("bob")
    body = "\0" * server.settings.body_bytes
    for number in range(100):
        await mallory.send("send", id=str(number), conversation="g", body=body)
    seqs: list[int] = []
    while len(seqs) < 100:
        message = await bob.socket.recv()
        assert len(message) < 1 << 20
        seqs += [entry["seq"] for entry in json.loads(message)["entries"]]
    assert seqs == list(range(2, 102))


async def test_a_client_that_sends_half_a_frame_and_goes_leaves_nothing(server: Server) -> None:
    client = await server.connect("alice")
    client.socket.transport.write(b"\x81\xfe\xff\xff\x00\x00\x00\x00half a frame")
    client.socket.transport.abort()
    await server.without("alice")


async def test_a_server_that_goes_answers_what_it_took_and_says_to_come_back(
    start_server: Any,
) -> None:
    server = await start_server()
    alice = await server.connect("alice")
    await alice.send("send", id="1", to="bob", body="just before")
    assert (await alice.receive())["acks"][0]["seq"] == 2
    await server.drain()
    frames, close = await alice.end()
    goodbye = frames[-1]
    assert (goodbye["t"], goodbye["code"]) == ("goodbye", "shutting_down")
    assert goodbye["reconnect"]
    assert close == 4101
