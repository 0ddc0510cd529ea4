"""A TCP proxy that misbehaves on demand: between a store's adapter and its real server.

What it does to bytes is set on it while it runs, and holds for connections that are open, too.
"""

import asyncio
import random
import socket
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 64 << 10
_RESET: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to a server, between `async with` and its end.

    Attributes:
        port: where it listens on 127.0.0.1.
        server_address: host and port of the server that new connections go to.
        latency_seconds: (least, most) that a chunk is held back, in each direction.
        slice_bytes: largest chunk that is passed on at a time, 0 for no limit.
        cut_after_bytes: what the server sends over a new connection is cut by a reset after so
            many bytes, if not None.
        refusing: new connections are reset at once.
        filtered: makes, for each new connection, what the server's bytes go through on their
            way, as they come; it may keep some back, or for good. None: as they are.
        opened: connections ever accepted.
        most_open: the most that were open at a time.
    """

    def __init__(
        self,
        host: str,
        port: int,
        chance: random.Random | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`host`, `port`: the server at first. `chance` draws latencies. `tls`: what clients
        meet here.
        """
        self.server_address = (host, port)
        self._tls = tls
        self._chance = chance or random.Random()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._changed = asyncio.Condition()
        self._open: dict[StreamWriter, StreamWriter] = {}
        self._handled = 0
        self._held = 0
        self._server: asyncio.Server | None = None
        self.port = 0
        self.latency_seconds = (0.0, 0.0)
        self.slice_bytes = 0
        self.cut_after_bytes: int | None = None
        self.refusing = False
        self.filtered: Callable[[], Callable[[bytes], bytes]] | None = None
        self.opened = 0
        self.most_open = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        self.resume()
        await self.until_open(0, seconds=10.0)
        async with self._changed:
            await self._changed.wait_for(lambda: self._handled == 0)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def pause(self) -> None:
        """Takes whatever comes and passes nothing on, in either direction: a black hole."""
        self._flowing.clear()

    def resume(self) -> None:
        """Passes on what was held back, and all that comes."""
        self._flowing.set()

    def reset_all(self) -> None:
        """Resets every connection that is open (RST)."""
        for near, far in list(self._open.items()):
            _reset(near)
            _reset(far)

    def end_all(self) -> None:
        """Ends every connection in order (FIN), as a server does with idle ones."""
        for near in list(self._open):
            near.close()

    async def until_open(self, count: int, *, seconds: float) -> None:
        """Waits until at most `count` connections are open; raises `TimeoutError`."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self.open <= count)

    async def until_held(self, *, seconds: float) -> None:
        """Waits, while paused, until something came that is held back; raises `TimeoutError`."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self._held > 0)

    async def _serve(self, reader: StreamReader, near: StreamWriter) -> None:
        self._handled += 1
        self.opened += 1
        try:
            if self.refusing:
                _reset(near)
                return
            answers, far = await asyncio.open_connection(*self.server_address)
            self._open[near] = far
            self.most_open = max(self.most_open, self.open)
            filtered = self.filtered() if self.filtered else _as_it_is
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far, None, _as_it_is))
                pumps.create_task(self._pump(answers, near, self.cut_after_bytes, filtered))
        except* OSError:
            _reset(near)
        finally:
            if (other := self._open.pop(near, None)) is not None:
                other.close()
            near.close()
            self._handled -= 1
            await self._announce()

    async def _pump(
        self,
        source: StreamReader,
        target: StreamWriter,
        most_bytes: int | None,
        filtered: Callable[[bytes], bytes],
    ) -> None:
        """Passes on until the source ends; then, or once `most_bytes` are through, ends both."""
        passed = 0
        while arrived := await source.read(_CHUNK_BYTES):
            chunk = filtered(arrived)
            while chunk:
                size = self.slice_bytes or len(chunk)
                if most_bytes is not None:
                    size = min(size, most_bytes - passed)
                    if not size:
                        raise ConnectionResetError
                data, chunk = chunk[:size], chunk[size:]
                if self.latency_seconds[1]:
                    await asyncio.sleep(self._chance.uniform(*self.latency_seconds))
                await self._wait_while_paused()
                passed += size
                target.write(data)
                await target.drain()
        raise ConnectionResetError

    async def _wait_while_paused(self) -> None:
        if self._flowing.is_set():
            return
        self._held += 1
        try:
            await self._announce()
            await self._flowing.wait()
        finally:
            self._held -= 1

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _as_it_is(data: bytes) -> bytes:
    return data


def _reset(writer: StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
