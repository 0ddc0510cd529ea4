"""Outlet: an endpoint's socket as the services see it."""

from typing import Protocol

from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding


class Outlet(Protocol):
    """Takes whole frames; joins what one turn of the loop gives it into one write."""

    @property
    def encoding(self) -> Encoding:
        """How this endpoint reads frames."""
        ...

    def write(self, frame: bytes) -> None:
        """Queues one encoded frame. A reader that is too slow is closed, never waited for."""
        ...

    def close(self, close: Close, reason: str) -> None:
        """Closes the connection once what is queued was written."""
        ...

    def page_bytes(self, most: int) -> int:
        """How long an answer may be, at most `most`, so that the link takes it within seconds.

        The answer that is written next is what the next one is measured by.
        """
        ...

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was written, or is gone."""
        ...
