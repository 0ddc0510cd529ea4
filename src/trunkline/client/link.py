"""What the client needs of a network: a dialer that opens links which carry whole frames."""

from typing import Final, Protocol

from trunkline.wire.encoding import Encoding

ABNORMAL: Final = 1006
"""The close code of a link that ended without one (RFC 6455, section 7.1.5)."""


class Receiver(Protocol):
    """Takes what a link brings; called on the loop's thread, never re-entered."""

    def frame_arrived(self, frame: bytes) -> None:
        """One whole frame, in order."""
        ...

    def link_closed(self, code: int, reason: str) -> None:
        """The link is gone; called exactly once, after the last frame."""
        ...


class Link(Protocol):
    """An open link; what is sent after its end is dropped."""

    def send(self, frame: bytes) -> None:
        """Queues one encoded frame."""
        ...

    def close(self, code: int) -> None:
        """Starts to close, after what is queued; `link_closed` follows."""
        ...


class Dialer(Protocol):
    """Opens links to one server."""

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        """Opens a link that speaks `encoding`; raises `Unreachable`."""
        ...
