"""Frames out of bytes: picows' parser, lent to a socket only while it is within a frame.

A parser and its buffer cost some 20 KiB, and a buffer that grew never shrinks by itself. Between
two frames a socket needs neither: all sockets read into the buffer of one spare parser, and who
is left with a part of a frame keeps that parser until the rest has come.
"""

import logging
from typing import Any, Final, Protocol

import structlog
from picows import WSFrame, WSListener, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

_BUFFER_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 14 * 1024
"""Read at a time: picows doubles a buffer that is nine tenths full before it looks into it."""
_LEAST_READ_BYTES: Final = 2 * 1024
_FREE_PARSERS: Final = 32
_IDLE: Final = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_log = structlog.get_logger("trunkline.gateway")
# A line for every stranger's broken frame would be a way to fill the disk.
_silent = logging.getLogger("trunkline.gateway.parsing")
_silent.setLevel(logging.CRITICAL + 1)


class Frames(Protocol):
    """Who is given the frames."""

    def frame_arrived(self, frame: WSFrame) -> None:
        """Takes one frame; its payload is valid only within the call."""
        ...

    def parsing_failed(self, close: bytes) -> None:
        """What came is not WebSocket; `close` is the payload of the frame to close with."""
        ...


class _Sink(WSListener):
    """What picows gives its frames to, and the connection that it believes it has."""

    __slots__ = ("frames", "left_bytes")

    def __init__(self) -> None:
        self.frames: Frames | None = None
        self.left_bytes = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.last_in_buffer:
            self.left_bytes = frame.tail_size
        assert self.frames is not None
        try:
            self.frames.frame_arrived(frame)
        except Exception:
            _log.exception("frame_broke")
            raise  # picows closes with 1011

    def write(self, data: bytes) -> None:
        """picows writes by itself only the handshake, and why it cannot go on."""
        if self.frames is not None:
            self.frames.parsing_failed(bytes(data[2:]))

    def get_write_buffer_size(self) -> int:
        """Never 0, so that nothing goes past `write`."""
        return 1

    def get_extra_info(self, name: str) -> "_Sink | None":
        return self if name == "socket" else None

    def setsockopt(self, *_: int) -> None:
        """There is no socket."""

    def getsockopt(self, *_: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """There is nothing to close."""


class Parser:
    """One picows parser, past its handshake."""

    __slots__ = ("_fresh_bytes", "_protocol", "_sink", "held_bytes")

    def __init__(self, frame_bytes: int) -> None:
        self._sink = _Sink()
        self._protocol: Any = WSProtocol(
            None, None, False, lambda _: self._sink, _silent, True,
            None, False, 1, 1, 1, False, frame_bytes, None, _BUFFER_BYTES,
        )  # fmt: skip
        self._protocol.connection_made(self._sink)
        self._protocol.get_buffer(-1)[: len(_IDLE)] = _IDLE
        self._protocol.buffer_updated(len(_IDLE))
        self._fresh_bytes = len(self._protocol.get_buffer(-1))
        self.held_bytes = 0

    def room(self) -> memoryview:
        """Where the next bytes are read to."""
        room: memoryview = self._protocol.get_buffer(-1)
        most = _READ_BYTES - self.held_bytes
        return room[:most] if most >= _LEAST_READ_BYTES else room

    def feed(self, frames: Frames, size: int) -> None:
        """Takes the bytes that were read; `held_bytes` are those of a frame still to end."""
        sink = self._sink
        sink.left_bytes = self.held_bytes + size
        sink.frames = frames
        try:
            self._protocol.buffer_updated(size)
        finally:
            sink.frames = None
        self.held_bytes = sink.left_bytes

    @property
    def is_fresh(self) -> bool:
        """Whether it stands between two frames, with a buffer that never grew."""
        return not self.held_bytes and len(self._protocol.get_buffer(-1)) == self._fresh_bytes


class Parsers:
    """The parsers of all sockets."""

    def __init__(self, frame_bytes: int) -> None:
        """`frame_bytes`: past it a frame is not read."""
        self._frame_bytes = frame_bytes
        self._free: list[Parser] = []
        self._take()

    def _take(self) -> None:
        self.spare = self._free.pop() if self._free else Parser(self._frame_bytes)
        self.room = self.spare.room()

    def lend(self) -> Parser:
        """The spare parser goes to a socket; another takes its place."""
        parser = self.spare
        self._take()
        return parser

    def give_back(self, parser: Parser) -> None:
        """Of a socket that stands between two frames."""
        if parser.is_fresh and len(self._free) < _FREE_PARSERS:
            self._free.append(parser)
