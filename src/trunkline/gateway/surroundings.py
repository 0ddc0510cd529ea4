"""What a socket asks of the listener that it belongs to."""

from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from trunkline.gateway.backlog import Backlog
from trunkline.gateway.framing import Framer
from trunkline.gateway.parsing import Parsers
from trunkline.gateway.settings import GatewaySettings
from trunkline.ports.clock import Clock
from trunkline.services.backbone import Backbone
from trunkline.wire.encoding import Encoding


class Surroundings(Protocol):
    """What all sockets share.

    Attributes:
        now: the monotonic time of the last tick.
        dirty: sockets that have something to flush.
        outgoing: what waits for readers that are slow.
        incoming: what came of frames and messages that have not ended yet.
    """

    backbone: Backbone
    settings: GatewaySettings
    clock: Clock
    now: float
    parsers: Parsers
    framers: dict[Encoding, Framer]
    dirty: deque[Any]
    outgoing: Backlog[Any]
    incoming: Backlog[Any]

    def spawn(self, serving: Coroutine[Any, Any, None]) -> None:
        """Runs a session's requests."""
        ...

    def name(self) -> str:
        """Of the next connection."""
        ...

    def check_room(self) -> None:
        """Raises `NoUpgrade` where there are too many sockets to greet one more."""
        ...

    def flush_soon(self) -> None:
        """Flushes the sockets that are dirty, from the loop's next turn on."""
        ...

    def look_again(self, held: Any, seconds: float) -> None:
        """Looks at a socket in so many seconds, and not before."""
        ...

    def known(self, held: Any) -> None:
        """The socket has greeted."""
        ...

    def gone(self, held: Any) -> None:
        """The socket is closed."""
        ...
