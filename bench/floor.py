"""The floor: the gateway's listener and frames acking and pushing, with nothing behind them.

No store, no sealing, no dedup, no look at the token: what Python can do on this machine at
all, and therefore what a server's rate is a share of.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from functools import partial

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from trunkline.core.ids import single_conversation_id
from trunkline.model import ConversationId, Entry, Kind, Seq, UserId
from trunkline.wire.encoding import JSON
from trunkline.wire.frames import (
    Ack,
    Acked,
    ClientFrame,
    Create,
    Hello,
    Limits,
    Push,
    Send,
    Welcome,
)

TEXT, CLOSE = WSMsgType.TEXT, WSMsgType.CLOSE
LIMITS = Limits(
    body_bytes=12_288,
    frame_bytes=1 << 20,
    group_members=10_000,
    users_per_operation=500,
    open_requests=1024,
    sends_per_second=1e9,
    send_burst=1_000_000,
)


def text_message(payload: bytes) -> bytes:
    """The WebSocket message of `payload` as it stands on the wire (RFC 6455, unmasked)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class Connection(WSListener):
    """One socket: it hands its sends to the turn, and is written to once a turn."""

    def __init__(self, floor: "Floor") -> None:
        self.floor = floor
        self.user = UserId("")
        self.singles: dict[UserId, ConversationId] = {}
        self.acks: list[Ack] = []
        self.out: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.write = transport.underlying_transport.write

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.floor.online.pop(self.user, None)
        self.write = lambda data: None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message_type = frame.msg_type
        if message_type is CLOSE:
            transport.disconnect()
        elif message_type is TEXT:
            received = JSON.decode_client(frame.get_payload_as_memoryview())
            if type(received) is Send:
                self.floor.take(self, received)
            else:
                self.greet(received)

    def greet(self, frame: ClientFrame) -> None:
        """Answers `create` and `hello`; there is nothing else but `send` here."""
        if isinstance(frame, Create):
            self.floor.groups[frame.conversation] = frame.users
            self.floor.heads[frame.conversation] = 1
            acked = Acked([Ack(frame.id, frame.conversation, Seq(1), int(time.time() * 1000))])
            self.write(text_message(JSON.encode(acked)))
        elif isinstance(frame, Hello) and frame.user is not None:
            self.welcome(frame.user)
        else:
            raise TypeError(f"The floor knows no {type(frame).__name__}.")

    def welcome(self, user: UserId) -> None:
        """From now on the user is online."""
        self.user = user
        self.floor.online[self.user] = self
        welcome = Welcome(1, self.user, "floor", int(time.time() * 1000), 30.0, 0, LIMITS)
        self.write(text_message(JSON.encode(welcome)))

    def single(self, to: UserId) -> ConversationId:
        """The conversation with `to`."""
        if (conversation := self.singles.get(to)) is None:
            conversation = self.singles[to] = single_conversation_id(self.user, to)
        return conversation


class Floor:
    """What the connections share: who is online, the heads, the sends of this loop turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.online: dict[UserId, Connection] = {}
        self.heads: dict[ConversationId, int] = {}
        self.groups: dict[ConversationId, Sequence[UserId]] = {}
        self.turn: list[tuple[Connection, Send]] = []

    def take(self, connection: Connection, send: Send) -> None:
        """Every frame that is readable in this loop turn joins one batch."""
        if not self.turn:
            self.loop.call_soon(self.answer)
        self.turn.append((connection, send))

    def answer(self) -> None:
        """Acks and pushes the turn's sends: one write for each connection."""
        turn, self.turn = self.turn, []
        time_ms = int(time.time() * 1000)
        heads = self.heads
        touched: dict[Connection, None] = {}
        pushes: dict[ConversationId, tuple[Sequence[UserId], list[Entry]]] = {}
        for connection, send in turn:
            conversation = send.conversation or connection.single(send.to or UserId(""))
            if (push := pushes.get(conversation)) is None:
                to = self.groups[conversation] if send.to is None else (send.to,)
                push = pushes[conversation] = (to, [])
            if not (head := heads.get(conversation, 0)):
                head = 1
                push[1].append(Entry(Seq(1), connection.user, time_ms, "{}", Kind.CREATED))
            seq = Seq(head + 1)
            heads[conversation] = seq
            connection.acks.append(Ack(send.id, conversation, seq, time_ms))
            push[1].append(Entry(seq, connection.user, time_ms, send.body))
            touched[connection] = None
        for conversation, (users, entries) in pushes.items():
            receivers = [self.online[user] for user in users if user in self.online]
            if receivers:
                frame = text_message(JSON.encode(Push(conversation, 1, entries)))
                for receiver in receivers:
                    receiver.out.append(frame)
                    touched[receiver] = None
        for connection in touched:
            if connection.acks:
                connection.out.append(text_message(JSON.encode(Acked(connection.acks))))
                connection.acks = []
            connection.write(b"".join(connection.out))
            connection.out = []


def upgrade(floor: Floor, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
    """Answers a handshake with the JSON subprotocol."""
    response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": JSON.subprotocol})
    return WSUpgradeResponseWithListener(response, Connection(floor))


async def serve(port: int) -> None:
    """Serves on loopback until the process is ended."""
    floor = Floor(asyncio.get_running_loop())
    server = await ws_create_server(partial(upgrade, floor), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
