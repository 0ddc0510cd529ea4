"""The WebSocket listener: one write per socket and turn of the loop, one look when it is due."""

import asyncio
import socket
from collections import deque
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final

from trunkline.errors import Overloaded
from trunkline.gateway.acceptor import Acceptor
from trunkline.gateway.backlog import Backlog
from trunkline.gateway.framing import Framer
from trunkline.gateway.handshake import NoUpgrade
from trunkline.gateway.outlet import SocketOutlet
from trunkline.gateway.parsing import Parsers
from trunkline.gateway.settings import GatewaySettings
from trunkline.gateway.socket import Socket
from trunkline.gateway.strangers import Strangers
from trunkline.gateway.wheel import Wheel
from trunkline.ports.clock import Clock
from trunkline.services.backbone import Backbone
from trunkline.wire.encoding import BY_SUBPROTOCOL

_TICK_SECONDS: Final = 0.25
_LEAST_TICK_SECONDS: Final = 0.02
_TICKS_A_HEARTBEAT: Final = 8
_LOOK_FOR_ROOM_SECONDS: Final = 1.0
_SOCKETS_BEYOND: Final = 1_000
_FLUSHED_AT_ONCE: Final = 32
"""Sockets written to in one turn of the loop. While a large group is served, the next message
is read and commits; a socket whose turn is yet to come then gets both in one write.
"""
NO_LIMIT: Final = 1 << 30


class Gateway:
    """Listens, and owns every socket's session until `close`."""

    def __init__(
        self,
        backbone: Backbone,
        settings: GatewaySettings,
        clock: Clock,
        most_files: int = NO_LIMIT,
    ) -> None:
        """`most_files`: the descriptor from which on no connection is accepted."""
        self.backbone = backbone
        self.settings = settings
        self.clock = clock
        self.now = clock.monotonic()
        """The time of the last tick."""
        services = backbone.settings
        self._tick_seconds = max(
            _LEAST_TICK_SECONDS,
            min(
                _TICK_SECONDS,
                services.heartbeat_seconds / _TICKS_A_HEARTBEAT,
                services.hello_seconds / _TICKS_A_HEARTBEAT,
            ),
        )
        self.sockets: set[Socket] = set()
        self.strangers: Strangers[Socket] = Strangers(
            settings.strangers, settings.strangers_per_address
        )
        self.outgoing: Backlog[SocketOutlet] = Backlog(settings.outlets_bytes)
        self.incoming: Backlog[Socket] = Backlog(settings.inlets_bytes)
        self.parsers = Parsers(services.frame_bytes * 4)
        self.framers = {
            encoding: Framer(binary=encoding.binary) for encoding in BY_SUBPROTOCOL.values()
        }
        self.dirty: deque[SocketOutlet] = deque()
        self._acceptor = Acceptor(self._accept, self._has_room, most_files)
        self._wheel: Wheel[SocketOutlet] = Wheel(self._tick_seconds, self.now)
        self._flushing = False
        self._accepted = 0
        self._group: asyncio.TaskGroup | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._closing = asyncio.Event()
        metrics = backbone.metrics
        metrics.strangers.set_function(lambda: len(self.strangers))
        metrics.outgoing.set_function(lambda: self.outgoing.total_bytes)
        metrics.incoming.set_function(lambda: self.incoming.total_bytes)

    async def listen(self, *, shared: bool = False) -> int:
        """Opens the port and returns its number; raises `AddressInUse`.

        `shared`: other processes may open the same one.
        """
        settings = self.settings
        port = await self._acceptor.open(
            settings.host, settings.port, backlog=settings.backlog, shared=shared
        )
        if self._group is not None:
            self._acceptor.start()
        return port

    async def run(self) -> None:
        """Serves until `close`; requests under way are cancelled then."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._acceptor.start()
                await self._turn_wheel()
                for task in list(self._requests):
                    task.cancel()
        finally:
            self._group = None

    def stop_accepting(self) -> None:
        """No new connections."""
        self._acceptor.close()

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
        for held in list(self.sockets):
            held.abort()

    # --- what the sockets ask for

    def spawn(self, serving: Coroutine[Any, Any, None]) -> None:
        """Runs a session's requests in the listener's task group."""
        if self._group is None:
            serving.close()
            return
        task = self._group.create_task(serving)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def name(self) -> str:
        """Of the next connection."""
        self._accepted += 1
        return f"c{self._accepted:x}"

    def check_room(self) -> None:
        """Raises `NoUpgrade` where there are too many sockets to greet one more."""
        if len(self.sockets) > self.backbone.settings.connections + _SOCKETS_BEYOND:
            raise NoUpgrade(HTTPStatus.SERVICE_UNAVAILABLE, Overloaded.advice)

    def flush_soon(self) -> None:
        """Flushes the sockets that have something to write, from the loop's next turn on."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def look_again(self, held: SocketOutlet, seconds: float) -> None:
        """Looks at a socket in so many seconds, and not before."""
        held.slot = self._wheel.put(held, self.now + seconds, held.slot)

    def known(self, held: Socket) -> None:
        """The socket has greeted."""
        self.strangers.left(held)
        self._acceptor.room_again()

    def gone(self, held: Socket) -> None:
        """The socket is closed."""
        self._wheel.take_out(held, held.slot)
        self.sockets.discard(held)
        self.known(held)
        if not self.sockets:
            self._empty.set()

    # --- within

    def _flush(self) -> None:
        dirty = self.dirty
        for _ in range(min(len(dirty), _FLUSHED_AT_ONCE)):
            dirty.popleft().flush()
        if dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._flushing = False

    def _has_room(self) -> bool:
        if not self.strangers.full:
            return True
        slowest = self.strangers.slowest(self.now)
        if slowest is None:
            return False
        self.strangers.left(slowest)
        self.backbone.metrics.strangers_refused.inc()
        slowest.abort()
        return True

    def _accept(self, accepted: socket.socket, address: str) -> None:
        if not self.strangers.takes(address):
            self.backbone.metrics.strangers_refused.inc()
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert self._group is not None
        held = Socket(self)
        self.sockets.add(held)
        self.strangers.came(held, address, self.now)
        self._group.create_task(self._attach(held, accepted))

    async def _attach(self, held: Socket, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: held, accepted)
        except OSError:
            accepted.close()
            self.gone(held)

    async def _turn_wheel(self) -> None:
        """Looks at the sockets that are due, and for room."""
        looked = self.now
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(self._tick_seconds):
                    await self._closing.wait()
            except TimeoutError:
                pass
            self.now, now_ms = self.clock.monotonic(), self.clock.now_ms()
            for held in self._wheel.turn(self.now):
                held.slot = 0
                seconds = held.due(self.now, now_ms)
                if seconds is not None:
                    self.look_again(held, seconds - self.now)
            if self.now - looked >= _LOOK_FOR_ROOM_SECONDS:
                looked = self.now
                self._acceptor.look()
