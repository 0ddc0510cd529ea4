"""One socket: its handshake, its frames for its session, its heartbeat."""

import asyncio
from typing import Final, cast

import picows

from trunkline.core.session import TokenBucket
from trunkline.errors import FrameTooLarge, ProtocolError, RateLimited, TokenExpired, WrongOrder
from trunkline.gateway import framing, handshake
from trunkline.gateway.outlet import GOODBYE_SECONDS, SocketOutlet
from trunkline.gateway.pace import LOOK_SECONDS
from trunkline.gateway.parsing import Parser
from trunkline.gateway.surroundings import Surroundings
from trunkline.services.session import ClientSession
from trunkline.wire.close import Close

_STRANGER_BYTES: Final = 16 * 1024
"""Of what may wait for its end before `hello`: the request's head, a frame, a message."""
_STRANGER_ADVICE: Final = "Before `hello` a frame is at most 16 KiB."
_MOST_FRAGMENTS: Final = 1_024
_STRANGERS_FRAGMENTS: Final = 16
_PING_BURST_SECONDS: Final = 10.0
_AFTER_CLOSE_BYTES: Final = 1024 * 1024
_MUCH_BYTES: Final = 12 * 1024
_CONTROL = (picows.WSMsgType.PING, picows.WSMsgType.PONG)


class Fragments:
    """The parts of a message whose end is still to come."""

    __slots__ = ("count", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = 0


class Socket(SocketOutlet, asyncio.BufferedProtocol):
    """The protocol of one connection, from its acceptance to its end."""

    __slots__ = (
        "_controls", "_delivered_bytes", "_fragments", "_head", "_heard", "_ignored_bytes",
        "_is_deaf", "_message", "_parser", "_pinged", "_ready", "_session", "born",
    )  # fmt: skip

    def __init__(self, gateway: Surroundings) -> None:
        super().__init__(gateway)
        self.born = self._heard = gateway.now
        self._head: bytearray | None = bytearray()
        self._session: ClientSession | None = None
        self._ready = False
        self._parser: Parser | None = None
        self._fragments: Fragments | None = None
        self._controls: TokenBucket | None = None
        self._pinged = 0.0
        self._delivered_bytes = 0
        self._ignored_bytes = 0
        self._is_deaf = False

    # --- what the gateway calls

    def due(self, now: float, now_ms: int) -> float | None:
        """Does what is due; returns when to look next, None where all is done."""
        if self._transport is None:
            return None
        if self._closing is not None or self._said_close:
            self.abort()
            return None
        settings, session = self._gateway.backbone.settings, self._session
        if session is None or not session.ready:
            deadline = self.born + settings.hello_seconds
            if now < deadline:
                return deadline
            if session is None:
                self.abort()
            else:
                session.say_goodbye(Close.WRONG_ORDER, WrongOrder("No `hello` came in time."))
            return None
        if now_ms > session.expires_ms:
            session.say_goodbye(Close.TOKEN_EXPIRED, TokenExpired())
            return None
        beat = self._beat(now, settings.heartbeat_seconds)
        if beat is None:
            return None
        expires = now + (session.expires_ms - now_ms + 1) / 1_000
        look = now + LOOK_SECONDS if self._look_at_pace(now) else beat
        return min(beat, expires, look)

    def give_up_part(self) -> None:
        """Closes who has left a frame or a message unfinished for longest."""
        self._is_deaf = True
        self._drop_parts()
        self._end(Close.OVERLOADED)

    def _beat(self, now: float, heartbeat_seconds: float) -> float | None:
        """Pings an idle peer, which has half a heartbeat to answer, or to take of what waits."""
        if self._pinged:
            deadline = self._pinged + heartbeat_seconds / 2
            if now < deadline:
                return deadline
            delivered = self.delivered_bytes
            if delivered <= self._delivered_bytes:
                self._end(Close.IDLE)
                return None
        else:
            due = self._heard + heartbeat_seconds
            if now < due:
                return due
            if not self._stalled:
                self._write(framing.PING)
            delivered = self.delivered_bytes
        self._pinged, self._delivered_bytes = now, delivered
        return now + heartbeat_seconds / 2

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened(cast(asyncio.Transport, transport))
        self._gateway.look_again(self, self._gateway.backbone.settings.hello_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
        self._drop_parts()
        self._gateway.gone(self)
        if self._session is not None:
            self._session.closed()

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        parser = self._parser
        return self._gateway.parsers.room if parser is None else parser.room()

    def buffer_updated(self, nbytes: int) -> None:
        gateway = self._gateway
        self._heard = gateway.now
        self._pinged = 0.0
        if self._head is not None:
            self._shake_hands(nbytes)
            return
        if self._said_close:
            self._ignored_bytes += nbytes
            if self._ignored_bytes > (_AFTER_CLOSE_BYTES if self._ready else _STRANGER_BYTES):
                self.abort()
        if not self._is_deaf:
            self._feed(nbytes)
        transport = self._transport
        if nbytes >= _MUCH_BYTES and transport is not None and not transport.is_closing():
            # libuv would read on, up to 32 times, before it looks at another socket.
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    # --- what the parser calls

    def frame_arrived(self, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        session = self._session
        assert session is not None
        if self._closing is not None:
            if kind == picows.WSMsgType.CLOSE and self._transport is not None:
                self._transport.close()
        elif kind == self._message and frame.fin and self._fragments is None:
            if frame.payload_size > self._gateway.backbone.settings.frame_bytes:
                session.refuse(FrameTooLarge())
                return
            session.receive(frame.get_payload_as_memoryview())
            if not self._ready and session.ready:
                self._is_known()
        elif kind in _CONTROL:
            self._take_control(session, frame)
        elif kind == picows.WSMsgType.CLOSE:
            self._closing = (Close.NORMAL, "")
            self.flush()
            if self._transport is not None:
                self._transport.close()
        elif kind == self._message or kind == picows.WSMsgType.CONTINUATION:
            self._join(session, frame, starts=kind == self._message)
        else:
            session.refuse(
                ProtocolError(f"The subprotocol {self.encoding.subprotocol} has other messages.")
            )

    def parsing_failed(self, close: bytes) -> None:
        """What came is not WebSocket, or a frame is far too large: why is said, no more."""
        self._is_deaf = True
        if self._transport is not None and not self._said_close:
            self._said_close = True
            self._write(framing.close(int.from_bytes(close[:2], "big"), close[2:].decode()))
            self._gateway.look_again(self, GOODBYE_SECONDS)

    # --- within

    def _shake_hands(self, size: int) -> None:
        """Gathers the head of the request, and answers it."""
        head, room = self._head, self._gateway.parsers.room
        assert head is not None
        begin = max(0, len(head) - len(handshake.END_OF_HEAD))
        head += room[:size]
        end = head.find(handshake.END_OF_HEAD, begin)
        try:
            if end < 0:
                if len(head) > _STRANGER_BYTES:
                    raise handshake.too_long()
                return
            upgrade = handshake.upgrade(bytes(head[:end]))
            self._gateway.check_room()
        except handshake.NoUpgrade as refusal:
            self._refuse(refusal.answer)
            return
        rest = bytes(head[end + len(handshake.END_OF_HEAD) :])
        self._head = None
        self._greet(upgrade)
        if rest:
            room[: len(rest)] = rest
            self._feed(len(rest))

    def _greet(self, upgrade: handshake.Upgrade) -> None:
        gateway, encoding = self._gateway, upgrade.encoding
        self.encoding = encoding
        self._framer = gateway.framers[encoding]
        self._message = picows.WSMsgType.BINARY if encoding.binary else picows.WSMsgType.TEXT
        self._session = ClientSession(gateway.backbone, self, gateway.name(), gateway.spawn)
        self._write(upgrade.answer)

    def _refuse(self, answer: bytes) -> None:
        """The request is answered in HTTP; what else comes is not looked at."""
        self._head, self._is_deaf, self._said_close = None, True, True
        self._write(answer)
        assert self._transport is not None
        self._transport.close()

    def _feed(self, size: int) -> None:
        parsers, parser = self._gateway.parsers, self._parser
        if parser is None:
            parser = parsers.spare
            parser.feed(self, size)
            if not (parser.held_bytes or self._fragments or self._is_deaf or self._closing):
                return
            if parser.held_bytes or self._is_deaf:
                self._parser = parsers.lend()
        else:
            parser.feed(self, size)
        if self._closing is not None and not self._ready:
            self._is_deaf = True
        if self._is_deaf:
            self._drop_parts()
            return
        if self._parser is not None and not parser.held_bytes:
            self._parser = None
            parsers.give_back(parser)
        self._hold_parts()

    def _hold_parts(self) -> None:
        """Counts what waits for its end: of a frame, of a message."""
        gateway, parser, fragments = self._gateway, self._parser, self._fragments
        size = (parser.held_bytes if parser else 0) + (len(fragments.data) if fragments else 0)
        if not size:
            gateway.incoming.release(self)
        elif size > _STRANGER_BYTES and (self._closing is not None or not self._ready):
            if self._session is not None and self._closing is None:
                self._session.refuse(FrameTooLarge(_STRANGER_ADVICE))
            self._is_deaf = True
            self._drop_parts()
        elif self._transport is not None:
            gateway.incoming.hold(self, size)
            for lazy in gateway.incoming.given_up():
                lazy.give_up_part()

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _drop_parts(self) -> None:
        # Not given back: what a parser holds would be taken for the next socket's.
        self._parser = self._fragments = None
        self._gateway.incoming.release(self)

    def _is_known(self) -> None:
        self._ready = True
        self._gateway.known(self)
        self._gateway.look_again(self, 0.0)

    def _take_control(self, session: ClientSession, frame: picows.WSFrame) -> None:
        """Pings and pongs cost work without a frame of the protocol: they have a rate."""
        now, rate = self._gateway.now, self._gateway.settings.pings_per_second
        if self._controls is None:
            self._controls = TokenBucket(rate, max(1, int(rate * _PING_BURST_SECONDS)), now)
        try:
            self._controls.take(now)
        except RateLimited as error:
            session.say_goodbye(Close.FLOODING, error)
            return
        if frame.msg_type == picows.WSMsgType.PING:
            self._answer_ping(frame.get_payload_as_bytes())

    def _join(self, session: ClientSession, frame: picows.WSFrame, *, starts: bool) -> None:
        """Joins the fragments of a message (RFC 6455 section 5.4)."""
        fragments = self._fragments
        if starts == (fragments is not None):
            session.refuse(ProtocolError("Fragments are out of order."))
            return
        if fragments is None:
            fragments = self._fragments = Fragments()
        fragments.data += frame.get_payload_as_memoryview()
        fragments.count += 1
        if len(fragments.data) > self._gateway.backbone.settings.frame_bytes:
            self._fragments = None
            session.refuse(FrameTooLarge())
        elif fragments.count > (_MOST_FRAGMENTS if self._ready else _STRANGERS_FRAGMENTS):
            self._fragments = None
            session.refuse(ProtocolError("A message comes in too many fragments."))
        elif frame.fin:
            self._fragments = None
            self._gateway.incoming.release(self)
            session.receive(memoryview(fragments.data))
            if not self._ready and session.ready:
                self._is_known()
