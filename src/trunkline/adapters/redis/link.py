"""One socket to a Redis server: commands of many callers in one write a loop turn.

Replies are matched by order. A caller that gave up leaves its slot in place, so nobody is
ever given another's reply. Speaks RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

Reply = Any
"""What hiredis makes of a reply: bytes, int, None, a list of these, or a `ReplyError`."""
ReplyError = hiredis.ReplyError
pack = cast("Callable[[tuple[str | int | bytes, ...]], bytes]", hiredis.pack_command)
"""A command as RESP; its own annotation wants tuples of one."""

_WRITE_BUFFER_BYTES: Final = 16 << 20
"""Written and not yet taken by the kernel; past it the server is taken for stuck."""

_WRITE_COMMANDS: Final = 256
"""So many are not left for the turn's end."""


class LinkLost(Exception):
    """The socket is closed; commands without a reply may have been carried out or not."""


class LinkFull(Exception):
    """Too many commands wait for replies; nothing was sent."""


class Link(asyncio.Protocol):
    """Attributes: `lost`, set once the socket is closed."""

    def __init__(self, most_in_flight: int, on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._most_in_flight = most_in_flight
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._slots: deque[tuple[asyncio.Future[list[Reply]], int]] = deque()
        self._replies: list[Reply] = []
        self._in_flight = 0
        self._outgoing: list[bytes] = []
        self._choked = False
        self.lost = asyncio.Event()

    def request(self, commands: Sequence[bytes]) -> asyncio.Future[list[Reply]]:
        """Sends packed commands; the future holds one reply for each, in their order.

        An error reply is a `ReplyError` in its place. The future fails with `LinkLost`.
        Raises `LinkLost`, `LinkFull`.
        """
        if self.lost.is_set():
            raise LinkLost
        if self._choked or self._in_flight + len(commands) > self._most_in_flight:
            raise LinkFull
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if not commands:
            future.set_result([])
            return future
        self._slots.append((future, len(commands)))
        self._in_flight += len(commands)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += commands
        if len(self._outgoing) >= _WRITE_COMMANDS:
            self._flush()  # so that one turn's requests, too, meet the bound of what is written
        return future

    def abort(self) -> None:
        """Closes the socket now."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Closes the socket and waits until the loop has let go of it."""
        if self._transport is not None:
            self._transport.abort()
            await self.lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._choked = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._choked = False

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._reader.feed(data)
        gets = self._reader.gets
        arrived: list[Reply] = []
        try:
            while (reply := gets()) is not False:
                arrived.append(reply)
        except hiredis.ProtocolError:
            self.abort()
        self.take(arrived)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.lost.set()
        self._outgoing.clear()
        while self._slots:
            future, _ = self._slots.popleft()
            if not future.done():
                future.set_exception(LinkLost())
        self._on_lost()

    def take(self, arrived: list[Reply]) -> None:
        """Gives replies to the callers whose turn it is."""
        place = 0
        while place < len(arrived):
            if not self._slots:
                self.abort()  # nobody asked: what it belongs to cannot be told
                return
            future, wanted = self._slots[0]
            replies = self._replies
            part = arrived[place : place + wanted - len(replies)]
            place += len(part)
            replies += part
            if len(replies) < wanted:
                return
            self._slots.popleft()
            self._in_flight -= wanted
            self._replies = []
            if not future.done():
                future.set_result(replies)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None:
            self._transport.write(b"".join(outgoing))
