"""The WebSocket listener on picows: one write per socket and turn of the loop."""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

import picows
import structlog

from trunkline.errors import (
    AddressInUse,
    FrameTooLarge,
    Overloaded,
    ProtocolError,
    TokenExpired,
    WrongOrder,
)
from trunkline.gateway.framing import Framer
from trunkline.gateway.settings import GatewaySettings
from trunkline.ports.clock import Clock
from trunkline.services.backbone import Backbone
from trunkline.services.session import ClientSession
from trunkline.wire.close import Close
from trunkline.wire.encoding import BY_SUBPROTOCOL, Encoding

PATH = b"/v1"
_SWEEP_SECONDS = 1.0
_GOODBYE_SECONDS = 5.0
_SOCKETS_BEYOND = 1_000
_FLUSHED_AT_ONCE = 32
"""Sockets written to in one turn of the loop. While a large group is served, the next message
is read and commits; a socket whose turn is yet to come then gets both in one write.
"""
_log = structlog.get_logger("trunkline.gateway")


class Gateway:
    """Listens, and owns every socket's session until `close`."""

    def __init__(self, backbone: Backbone, settings: GatewaySettings, clock: Clock) -> None:
        self.backbone = backbone
        self.settings = settings
        self.clock = clock
        self.sockets: set[Socket] = set()
        self.framers = {
            encoding: Framer(binary=encoding.binary) for encoding in BY_SUBPROTOCOL.values()
        }
        self.dirty: deque[Socket] = deque()
        self._flushing = False
        self._accepted = 0
        self._group: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._closing = asyncio.Event()

    async def listen(self, *, shared: bool = False) -> int:
        """Opens the port and returns its number; raises `AddressInUse`.

        `shared`: other processes may open the same one.
        """
        services = self.backbone.settings
        try:
            self._server = await picows.ws_create_server(
                self._accept,
                self.settings.host,
                self.settings.port,
                backlog=self.settings.backlog,
                reuse_port=shared,
                max_frame_size=services.frame_bytes * 4,
                read_buffer_init_size=self.settings.read_buffer_bytes,
                websocket_handshake_timeout=services.hello_seconds,
                enable_auto_ping=True,
                auto_ping_idle_timeout=services.heartbeat_seconds,
                auto_ping_reply_timeout=services.heartbeat_seconds,
                enable_auto_pong=True,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{self.settings.host}:{self.settings.port} is in use: choose another port."
                ) from None
            raise
        return int(self._server.sockets[0].getsockname()[1])

    async def run(self) -> None:
        """Serves until `close`; requests under way are cancelled then."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._sweep()
                for task in list(self._requests):
                    task.cancel()
        finally:
            self._group = None

    def stop_accepting(self) -> None:
        """No new connections."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Ends `run`."""
        self._closing.set()

    async def closed_by_peers(self, seconds: float) -> None:
        """Waits a while for the sockets to go, then aborts those that are left."""
        if self.sockets:
            self._empty.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
            except TimeoutError:
                pass
        for socket in list(self.sockets):
            socket.abort()

    def spawn(self, serving: Coroutine[Any, Any, None]) -> None:
        """Runs a session's requests in the listener's task group."""
        if self._group is None:
            serving.close()
            return
        task = self._group.create_task(serving)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def flush_soon(self) -> None:
        """Flushes the sockets that have something to write, from the loop's next turn on."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def gone(self, socket: "Socket") -> None:
        """The socket is closed."""
        self.sockets.discard(socket)
        if not self.sockets:
            self._empty.set()

    def _flush(self) -> None:
        dirty = self.dirty
        for _ in range(min(len(dirty), _FLUSHED_AT_ONCE)):
            dirty.popleft().flush()
        if dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._flushing = False

    def _accept(
        self, request: picows.WSUpgradeRequest
    ) -> "Socket | picows.WSUpgradeResponseWithListener | None":
        if request.path.split(b"?", 1)[0] != PATH:
            return None
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        encoding = next((BY_SUBPROTOCOL[p] for p in offered if p in BY_SUBPROTOCOL), None)
        if encoding is None:
            return _error(400, f"Offer a subprotocol: {', '.join(BY_SUBPROTOCOL)}.")
        if len(self.sockets) >= self.backbone.settings.connections + _SOCKETS_BEYOND:
            return _error(503, Overloaded.advice)
        self._accepted += 1
        response = picows.WSUpgradeResponse.create_101_response(
            extra_headers={"Sec-WebSocket-Protocol": encoding.subprotocol}
        )
        return picows.WSUpgradeResponseWithListener(
            response, Socket(self, encoding, f"c{self._accepted:x}")
        )

    async def _sweep(self) -> None:
        """Closes sockets that never said hello, and those whose token has ended."""
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._closing.wait()
            except TimeoutError:
                pass
            now, now_ms = self.clock.monotonic(), self.clock.now_ms()
            for socket in list(self.sockets):
                socket.check(now, now_ms)


def _error(status: int, text: str) -> picows.WSUpgradeResponseWithListener:
    return picows.WSUpgradeResponseWithListener(
        picows.WSUpgradeResponse.create_error_response(status, text.encode()), None
    )


class Socket(picows.WSListener):
    """One socket: an `Outlet` for the services, frames for its session."""

    __slots__ = (
        "_closing", "_dirty", "_drained", "_fragments", "_framer", "_frames", "_gateway",
        "_message", "_most_bytes", "_most_queued_bytes", "_paused", "_queued_bytes", "_session",
        "_since", "_timer", "_transport", "_under", "encoding",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, encoding: Encoding, name: str) -> None:
        self.encoding = encoding
        self._gateway = gateway
        self._dirty = gateway.dirty
        self._framer = gateway.framers[encoding]
        self._session = ClientSession(gateway.backbone, self, name, gateway.spawn)
        self._transport: picows.WSTransport | None = None
        self._under: asyncio.Transport | None = None
        self._frames: list[bytes] = []
        self._closing: tuple[Close, str] | None = None
        self._fragments: bytearray | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._queued_bytes = 0
        settings = gateway.settings
        self._most_queued_bytes = min(settings.outlet_pause_bytes, settings.outlet_bytes)
        self._paused = False
        self._since = 0.0
        self._message = picows.WSMsgType.BINARY if encoding.binary else picows.WSMsgType.TEXT
        self._most_bytes = gateway.backbone.settings.frame_bytes

    # --- what the services call (ports.outlet.Outlet)

    def write(self, frame: bytes) -> None:
        """Queues one encoded frame for the next flush."""
        if self._under is None or self._closing is not None:
            return
        frames = self._frames
        if not frames:
            self._wrote()
        frames.append(self._framer.frame(frame))
        self._queued_bytes += len(frame)
        if self._queued_bytes > self._most_queued_bytes:
            self._drained.clear()

    def close(self, close: Close, reason: str) -> None:
        """Closes after the next flush."""
        if self._closing is None and self._transport is not None:
            if not self._frames:
                self._wrote()
            self._closing = (close, reason)

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was written."""
        await self._drained.wait()

    def _wrote(self) -> None:
        dirty = self._dirty
        if not dirty:
            self._gateway.flush_soon()
        dirty.append(self)

    # --- what the gateway calls

    def flush(self) -> None:
        """Hands everything queued to the kernel as one write."""
        under = self._under
        if under is None:
            return
        frames = self._frames
        if frames:
            under.write(frames[0] if len(frames) == 1 else b"".join(frames))
            frames.clear()
        much = self._queued_bytes > self._most_queued_bytes
        self._queued_bytes = 0
        if self._closing is not None:
            self._say_close(*self._closing)
        elif self._paused:
            if under.get_write_buffer_size() > self._gateway.settings.outlet_bytes:
                self._end(Close.SLOW_READER)
        elif much:
            self._drained.set()

    def _say_close(self, close: Close, reason: str) -> None:
        assert self._transport is not None
        self._transport.send_close(cast(picows.WSCloseCode, int(close)), reason.encode())
        # Closing at once would reset the connection where frames of the peer are unread,
        # and the peer would never see why (RFC 6455 section 7.1.1).
        self._set_timer(_GOODBYE_SECONDS, self.abort)

    def _end(self, close: Close) -> None:
        """Closes because of the socket itself: no frame is written to it any more."""
        reason = close.name.lower()
        _log.info(reason)
        self._gateway.backbone.metrics.closed.labels(reason).inc()
        self.close(close, reason)

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def abort(self) -> None:
        """Drops the socket and what it has not taken."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def check(self, now: float, now_ms: int) -> None:
        """Ends a socket without hello, or past its token's expiry."""
        session = self._session
        if not session.ready:
            if now - self._since > self._gateway.backbone.settings.hello_seconds:
                session.say_goodbye(Close.WRONG_ORDER, WrongOrder("No `hello` came in time."))
        elif now_ms > session.expires_ms:
            session.say_goodbye(Close.TOKEN_EXPIRED, TokenExpired())

    # --- what picows calls

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self._since = self._gateway.clock.monotonic()
        self._under = transport.underlying_transport
        self._under.set_write_buffer_limits(high=self._most_queued_bytes)
        self._gateway.sockets.add(self)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._transport = self._under = None
        if self._timer is not None:
            self._timer.cancel()
        self._frames.clear()
        self._drained.set()
        self._gateway.gone(self)
        self._session.closed()

    def pause_writing(self) -> None:
        self._paused = True
        self._drained.clear()

    def resume_writing(self) -> None:
        self._paused = False
        self._drained.set()

    def send_user_specific_ping(self, transport: picows.WSTransport) -> None:
        """Pings an idle peer, which has half a heartbeat to answer."""
        transport.send_ping()
        if self._closing is None:
            self._set_timer(self._gateway.backbone.settings.heartbeat_seconds / 2, self._fall_idle)

    def is_user_specific_pong(self, frame: picows.WSFrame) -> bool:
        """Whether the peer is there after all."""
        pong = frame.msg_type == picows.WSMsgType.PONG
        if pong and self._closing is None and self._timer is not None:
            self._timer.cancel()
        return pong

    def _fall_idle(self) -> None:
        if self._closing is None:
            self._end(Close.IDLE)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if self._closing is not None:
            if kind == picows.WSMsgType.CLOSE:
                transport.disconnect()
        elif kind == self._message and frame.fin and self._fragments is None:
            if frame.payload_size > self._most_bytes:
                self._session.refuse(FrameTooLarge())
            else:
                self._session.receive(frame.get_payload_as_memoryview())
        elif kind == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        elif kind == self._message or kind == picows.WSMsgType.CONTINUATION:
            self._join(kind == self._message, frame)
        elif kind in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            self._session.refuse(
                ProtocolError(f"The subprotocol {self.encoding.subprotocol} has other messages.")
            )

    def _join(self, starts: bool, frame: picows.WSFrame) -> None:
        """Joins the fragments of a message (RFC 6455 section 5.4)."""
        if starts == (self._fragments is not None):
            self._session.refuse(ProtocolError("Fragments are out of order."))
            return
        if self._fragments is None:
            self._fragments = bytearray()
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > self._most_bytes:
            self._fragments = None
            self._session.refuse(FrameTooLarge())
        elif frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._session.receive(message)
