"""The outgoing half of a socket: one write a turn of the loop, and what a slow reader holds up.

What the peer does not take stays here, as references to frames that many sockets share; the
transport is given little more than it can pass on.
"""

import asyncio
import fcntl
import struct
import termios
from typing import Final

import structlog

from trunkline.gateway import framing
from trunkline.gateway.pace import LOOK_SECONDS, Pace
from trunkline.gateway.surroundings import Surroundings
from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding

_IN_TRANSPORT_BYTES: Final = 64 * 1024
GOODBYE_SECONDS: Final = 5.0
_log = structlog.get_logger("trunkline.gateway")


class SocketOutlet:
    """An `Outlet` for the services, on a transport of asyncio."""

    __slots__ = (
        "_closing", "_dirty", "_framer", "_frames", "_gateway", "_pace", "_pong", "_queued_bytes",
        "_room", "_said_close", "_stalled", "_transport", "_written_bytes", "encoding", "slot",
    )  # fmt: skip

    encoding: Encoding
    _framer: framing.Framer

    def __init__(self, gateway: Surroundings) -> None:
        self._gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._frames: list[bytes] = []
        self._queued_bytes = 0
        self._written_bytes = 0
        self._pong: bytes | None = None
        self._pace: Pace | None = None
        self._dirty = False
        self._stalled = False
        self._closing: tuple[Close, str] | None = None
        self._said_close = False
        self._room: asyncio.Future[None] | None = None
        self.slot = 0

    # --- what the services call (ports.outlet.Outlet)

    def write(self, frame: bytes) -> None:
        """Queues one encoded frame for the next flush."""
        if self._transport is None or self._closing is not None:
            return
        if not self._dirty:
            self._flush_soon()
        self._frames.append(self._framer.frame(frame))
        self._queued_bytes += len(frame)

    def close(self, close: Close, reason: str) -> None:
        """Closes after the next flush."""
        if self._closing is None and self._transport is not None:
            if not self._dirty:
                self._flush_soon()
            self._closing = (close, reason)
            self._gateway.look_again(self, GOODBYE_SECONDS)

    def page_bytes(self, most: int) -> int:
        """How long an answer may be, at most `most`, so that the link takes it within seconds."""
        pace = self._pace
        if pace is None:
            pace = self._pace = Pace()
        now = self._gateway.clock.monotonic()
        written, delivered = self._written_bytes + self._queued_bytes, self.delivered_bytes
        pace.look(now, written, delivered)
        pace.begin(now, written, delivered)
        self._gateway.look_again(self, LOOK_SECONDS)
        return min(most, pace.page_bytes)

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was written."""
        most = self._gateway.settings.outlet_pause_bytes
        while self._transport is not None and self.waiting_bytes > most:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    # --- what the gateway calls

    def due(self, now: float, now_ms: int) -> float | None:
        """Does what is due; returns when to look next, None where all is done."""
        raise NotImplementedError

    @property
    def waiting_bytes(self) -> int:
        """What the kernel has not taken yet."""
        transport = self._transport
        return self._queued_bytes + (transport.get_write_buffer_size() if transport else 0)

    @property
    def delivered_bytes(self) -> int:
        """What the peer's kernel has taken of all that was written, as far as ours tells."""
        transport = self._transport
        if transport is None:
            return self._written_bytes
        return self._written_bytes - transport.get_write_buffer_size() - _unacknowledged(transport)

    def flush(self) -> None:
        """Hands everything queued to the kernel as one write, unless the peer is slow."""
        self._dirty = False
        transport = self._transport
        if transport is None or self._said_close:
            return
        if self._pong is not None and not self._stalled:
            self._frames.append(self._pong)
            self._pong = None
        if self._frames and not self._stalled:
            self._write(b"".join(self._frames) if len(self._frames) > 1 else self._frames[0])
            self._frames.clear()
            self._queued_bytes = 0
        if self._closing is not None:
            self._say_close(*self._closing)
        elif self._stalled:
            self._hold()
        if self._room is not None:
            self._make_room()

    def give_up(self) -> None:
        """Closes a reader that is too slow: what it has not taken is dropped."""
        self._frames.clear()
        self._queued_bytes = 0
        self._end(Close.SLOW_READER)

    def abort(self) -> None:
        """Drops the socket and what it has not taken."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls

    def pause_writing(self) -> None:
        self._stalled = True

    def resume_writing(self) -> None:
        """The peer takes more: it is given the next part of what waits."""
        self._stalled = False
        frames = self._frames
        while frames and not self._stalled and not self._said_close:
            count, size = 0, 0
            while count < len(frames) and size < _IN_TRANSPORT_BYTES:
                size += len(frames[count])
                count += 1
            self._write(b"".join(frames[:count]))
            del frames[:count]
            self._queued_bytes = max(0, self._queued_bytes - size)
        self._gateway.outgoing.progressed(self)
        if self._stalled:
            self._hold()
        else:
            self._queued_bytes = 0
            self._gateway.outgoing.release(self)
            if self._pong is not None and not self._dirty:
                self._flush_soon()
        self._make_room()

    # --- within

    def _look_at_pace(self, now: float) -> bool:
        """Whether an answer is still on its way."""
        pace = self._pace
        if pace is None or not pace.measures:
            return False
        pace.look(now, self._written_bytes + self._queued_bytes, self.delivered_bytes)
        return pace.measures

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_IN_TRANSPORT_BYTES)

    def _lost(self) -> None:
        self._transport = None
        self._frames.clear()
        self._gateway.outgoing.release(self)
        self._make_room()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._written_bytes += len(data)
        self._transport.write(data)

    def _answer_ping(self, payload: bytes) -> None:
        """The latest unanswered ping is answered, in the next flush (RFC 6455 section 5.5.3)."""
        if self._transport is not None and self._closing is None:
            self._pong = framing.pong(payload)
            if not self._dirty and not self._stalled:
                self._flush_soon()

    def _flush_soon(self) -> None:
        self._dirty = True
        dirty = self._gateway.dirty
        if not dirty:
            self._gateway.flush_soon()
        dirty.append(self)

    def _hold(self) -> None:
        waiting = self.waiting_bytes
        if waiting > self._gateway.settings.outlet_bytes:
            self.give_up()
        else:
            self._gateway.outgoing.hold(self, waiting)
            for lazy in self._gateway.outgoing.given_up():
                lazy.give_up()

    def _make_room(self) -> None:
        room = self._room
        if room is None:
            return
        if self._transport is None or (
            self.waiting_bytes <= self._gateway.settings.outlet_pause_bytes // 4
        ):
            self._room = None
            if not room.done():
                room.set_result(None)

    def _say_close(self, close: Close, reason: str) -> None:
        self._said_close = True
        self._gateway.outgoing.release(self)
        # Closing at once would reset the connection where frames of the peer are unread,
        # and the peer would never see why (RFC 6455 section 7.1.1).
        self._write(b"".join((*self._frames, framing.close(close, reason))))
        self._frames.clear()
        self._gateway.look_again(self, GOODBYE_SECONDS)

    def _end(self, close: Close) -> None:
        """Closes because of the socket itself: no frame is written to it any more."""
        reason = close.name.lower()
        _log.info(reason)
        self._gateway.backbone.metrics.closed.labels(reason).inc()
        self.close(close, reason)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the kernel that the peer's kernel has not acknowledged."""
    descriptor = transport.get_extra_info("socket").fileno()
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
