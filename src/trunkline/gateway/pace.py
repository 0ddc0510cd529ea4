"""How long an answer may be on a link: as much as it takes within seconds, as it was measured."""

from typing import Final

FIRST_BYTES: Final = 64 * 1024
LEAST_BYTES: Final = 8 * 1024
MOST_BYTES: Final = 1 << 30
ARRIVES_SECONDS: Final = 8.0
QUICK_SECONDS: Final = 2.5
LOOK_SECONDS: Final = 2.0
_GROWTH: Final = 4
_LEFT_BYTES: Final = 4 * 1024
"""So little on its way says nothing: there is always something of pushes."""


class Pace:
    """Of one link.

    Positions are counts of bytes since the connection began: `written` of what was given to the
    link, `delivered` of what the peer's kernel has taken. An answer should arrive within
    `ARRIVES_SECONDS`: a client that waits for a whole frame gives up some time, and what had
    come of it is lost.
    """

    __slots__ = ("_began", "_delivered", "_written", "page_bytes")

    def __init__(self) -> None:
        self.page_bytes = FIRST_BYTES
        self._began: float | None = None
        self._written = 0
        self._delivered = 0

    @property
    def measures(self) -> bool:
        """Whether an answer is on its way that is worth another look."""
        return self._began is not None

    def begin(self, now: float, written: int, delivered: int) -> None:
        """An answer is about to be written."""
        self._began, self._written, self._delivered = now, written, delivered

    def look(self, now: float, written: int, delivered: int) -> None:
        """Learns from what has become of the answer so far."""
        if self._began is None:
            return
        seconds = now - self._began
        if written - delivered <= _LEFT_BYTES:
            self._began = None
            if seconds <= QUICK_SECONDS and written - self._written >= self.page_bytes // 2:
                self.page_bytes = min(MOST_BYTES, self.page_bytes * _GROWTH)
        elif seconds >= LOOK_SECONDS / 2:
            rate = (delivered - self._delivered) / seconds
            self.page_bytes = min(MOST_BYTES, max(LEAST_BYTES, int(rate * ARRIVES_SECONDS)))
