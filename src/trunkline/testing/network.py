"""Network between clients' dialers and the server's sessions: slow, and broken at any moment.

A connection is FIFO, as TCP is; connections overtake one another. When one breaks, what was
in flight arrives in part; its ends learn of it soon, late (half-open), each at its own time.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from trunkline.client.link import ABNORMAL, Link, Receiver
from trunkline.errors import Unreachable
from trunkline.ports.outlet import Outlet
from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding

HALF_OPEN_SECONDS = (2.0, 45.0)
_BUFFER_FRAMES = 4096
_DRAINED_FRAMES = 8


class Session(Protocol):
    """What the server makes of a connection."""

    def receive(self, data: bytes) -> None:
        """Takes one frame of the client."""
        ...

    def closed(self) -> None:
        """The connection is gone."""
        ...


Accept = Callable[[Outlet, str], Session]
"""Makes the session of a new connection, given its outlet and its name."""


class FrameObserver(Protocol):
    """Sees the frames of one connection as they are put on the wire."""

    def sent(self, data: bytes) -> None:
        """The client sent a frame."""
        ...

    def written(self, data: bytes) -> None:
        """The server wrote a frame."""
        ...


Observe = Callable[[str, Encoding], FrameObserver]
"""Makes the observer of a new connection of an endpoint."""


class Lane:
    """One direction of a connection: frames arrive in order, each after a delay."""

    def __init__(
        self, network: "Network", deliver: Callable[[bytes], None], end: Callable[[], None]
    ) -> None:
        self._network = network
        self._deliver = deliver
        self._end = end
        self._flying: deque[bytes | None] = deque()
        self._last_arrival = 0.0
        self._closed = False
        self._ended = False
        self._to_lose = 0

    def send(self, frame: bytes) -> bool:
        """Puts a frame on its way; after the lane's end it is dropped, and False returned."""
        if self._closed or len(self._flying) >= _BUFFER_FRAMES:
            return False
        self._schedule(frame, self._network.delay())
        return True

    def end(self, after_seconds: float = 0.0) -> None:
        """What is in flight arrives, then the receiver learns that there is no more."""
        if not self._closed:
            self._closed = True
            self._schedule(None, self._network.delay() + after_seconds)

    def is_short(self, frames: int) -> bool:
        """Whether no more than so many frames are in flight."""
        return len(self._flying) <= frames

    def mute(self) -> None:
        """What is in flight, or sent from now on, arrives in part (at random), silently."""
        if not self._closed:
            self._to_lose = self._network.random.randint(0, len(self._flying))
            self._closed = True

    def wake(self, after_seconds: float) -> None:
        """The end of a muted lane, long after."""
        self._schedule(None, after_seconds)

    def _schedule(self, frame: bytes | None, delay: float) -> None:
        loop = self._network.loop
        self._flying.append(frame)
        self._last_arrival = max(self._last_arrival, loop.time() + delay)
        loop.call_at(self._last_arrival, self._arrive)

    def _arrive(self) -> None:
        # Timers of the same moment run in any order: each takes whatever is next in line.
        frame = self._flying.popleft()
        if frame is None:
            self._finish()
        elif not self._ended and len(self._flying) >= self._to_lose:
            self._deliver(frame)

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._end()


class Wire:
    """One connection: the client's link on one end, the server's outlet on the other."""

    def __init__(
        self, network: "Network", name: str, endpoint: str, receiver: Receiver, encoding: Encoding
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self._network = network
        self._receiver = receiver
        self._encoding = encoding
        self._code, self._reason = ABNORMAL, ""
        self._session: Session | None = None
        self._observer = network.observe(endpoint, encoding)
        self._taken = asyncio.Event()
        self._up = Lane(network, self._to_server, self._server_learns_of_the_end)
        self._down = Lane(network, self._to_client, self._client_learns_of_the_end)

    # --- the server's end: an Outlet ----------------------------------------------------

    @property
    def encoding(self) -> Encoding:
        """How this endpoint reads frames."""
        return self._encoding

    def write(self, frame: bytes) -> None:
        """Puts a frame of the server on its way."""
        if self._down.send(frame):
            self._observer.written(frame)

    def close(self, close: Close, reason: str) -> None:
        """The server closes, after what is queued."""
        self._code, self._reason = int(close), reason
        self._down.end()
        self._up.end()

    def page_bytes(self, most: int) -> int:
        """All of it: every link is fast."""
        return most

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was written, or is gone."""
        while self._session is not None and not self._down.is_short(_DRAINED_FRAMES):
            self._taken.clear()
            await self._taken.wait()

    def attach(self, session: Session) -> None:
        """The session that takes the client's frames."""
        self._session = session

    # --- the client's end: a Link -------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Puts a frame of the client on its way."""
        if self._up.send(frame):
            self._observer.sent(frame)
            if self._network.arrives_twice(frame):
                self._up.send(frame)

    def hang_up(self) -> None:
        """The client closes, after what is queued."""
        self._code = int(Close.NORMAL)
        self._up.end()
        self._down.end()

    # --- trouble ------------------------------------------------------------------------

    def tear(self, *, client_learns: bool = True, server_learns: bool = True) -> None:
        """The connection breaks now; an end that does not learn of it does so much later."""
        late = self._network.random.uniform(*HALF_OPEN_SECONDS)
        for lane, learns in ((self._down, client_learns), (self._up, server_learns)):
            lane.mute()
            lane.wake(self._network.delay() if learns else late)

    def _to_server(self, frame: bytes) -> None:
        if self._session is not None:
            self._session.receive(frame)

    def _to_client(self, frame: bytes) -> None:
        self._receiver.frame_arrived(frame)
        self._taken.set()

    def _server_learns_of_the_end(self) -> None:
        session, self._session = self._session, None
        self._taken.set()
        self._network.forget(self)
        if session is not None:
            session.closed()
        self._down.end()

    def _client_learns_of_the_end(self) -> None:
        self._up.end()
        self._receiver.link_closed(self._code, self._reason)


class ClientLink:
    """A `client.link.Link` over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def send(self, frame: bytes) -> None:
        """Queues one encoded frame."""
        self._wire.send(frame)

    def close(self, code: int) -> None:
        """Starts to close, after what is queued."""
        del code
        self._wire.hang_up()


class Network:
    """All wires between the endpoints and one server.

    Attributes:
        accept: how the server takes a connection; None while it is down.
        cut_off: endpoints that reach nothing now.
        mean_delay: of a frame, seconds.
        spikes: the share of frames that take up to 50 times as long.
        arrives_twice: whether a client's frame is sent once more right after itself.
        observe: makes the observer of a new connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int, observe: Observe) -> None:
        self.loop = loop
        self.observe = observe
        self.random = random.Random(f"network {seed}")
        self.accept: Accept | None = None
        self.cut_off: set[str] = set()
        self.mean_delay = 0.005
        self.spikes = 0.0
        self.arrives_twice: Callable[[bytes], bool] = _never
        self._wires: dict[Wire, None] = {}
        self._opened = 0

    def delay(self) -> float:
        """How long the next frame takes, seconds."""
        seconds = self.random.expovariate(1 / self.mean_delay)
        if self.spikes and self.random.random() < self.spikes:
            seconds *= self.random.uniform(1.0, 50.0)
        return seconds

    def dialer(self, endpoint: str) -> "SimulatedDialer":
        """The dialer of one endpoint."""
        return SimulatedDialer(self, endpoint)

    def wires(self) -> list[Wire]:
        """The connections that the server believes to be open, oldest first."""
        return list(self._wires)

    def open(self, endpoint: str, receiver: Receiver, encoding: Encoding) -> Link:
        """Connects; raises `Unreachable`."""
        if self.accept is None or endpoint in self.cut_off:
            raise Unreachable
        self._opened += 1
        wire = Wire(self, f"w{self._opened}", endpoint, receiver, encoding)
        wire.attach(self.accept(wire, wire.name))
        self._wires[wire] = None
        return ClientLink(wire)

    def forget(self, wire: Wire) -> None:
        """The server knows that this connection is gone."""
        self._wires.pop(wire, None)

    def cut(self, endpoint: str) -> None:
        """Every connection of an endpoint breaks; the server learns of it soon or late."""
        for wire in self.wires():
            if wire.endpoint == endpoint:
                wire.tear(server_learns=self.random.random() < 0.5)

    def server_dies(self) -> None:
        """Every connection breaks; some clients learn of it at once, some late."""
        self.accept = None
        self.worker_dies(self._wires)

    def worker_dies(self, outlets: Collection[Outlet]) -> None:
        """The connections behind these outlets break in the same way."""
        for wire in self.wires():
            if wire in outlets:
                wire.attach(_Nobody())
                wire.tear(client_learns=self.random.random() < 0.8)
                self.forget(wire)

    def heal(self) -> None:
        """From now on everybody reaches the server, soon and once."""
        self.cut_off.clear()
        self.spikes = 0.0
        self.arrives_twice = _never


class SimulatedDialer:
    """A `client.link.Dialer` into a simulated network."""

    def __init__(self, network: Network, endpoint: str) -> None:
        self._network = network
        self._endpoint = endpoint

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        """Opens a link that speaks `encoding`; raises `Unreachable`."""
        await asyncio.sleep(self._network.delay())
        return self._network.open(self._endpoint, receiver, encoding)


class _Nobody:
    """Stands for a session whose process is dead."""

    def receive(self, data: bytes) -> None:
        """Nobody reads it."""

    def closed(self) -> None:
        """Nobody minds."""


def _never(frame: bytes) -> bool:
    """No frame arrives twice."""
    return False
