"""The order of a connection's frames and the rate of a user's sends, without a socket."""

from enum import StrEnum
from typing import Final

from trunkline.errors import RateLimited, UnsupportedVersion, WrongOrder
from trunkline.wire.frames import PROTOCOL_VERSION, ClientFrame, Hello


class SessionState(StrEnum):
    """Where a connection stands."""

    NEW = "new"
    READY = "ready"
    CLOSED = "closed"


TRANSITIONS: Final[dict[tuple[SessionState, bool], SessionState]] = {
    (SessionState.NEW, True): SessionState.READY,
    (SessionState.READY, False): SessionState.READY,
}
"""(state, whether the frame is `hello`) → next state; what is not here is `wrong_order`."""


class ProtocolSession:
    """Checks that frames come in an order the protocol allows."""

    def __init__(self) -> None:
        self.state = SessionState.NEW

    def receive(self, frame: ClientFrame) -> None:
        """Takes the next frame; raises `WrongOrder` or `UnsupportedVersion`."""
        after = TRANSITIONS.get((self.state, isinstance(frame, Hello)))
        if after is None:
            raise WrongOrder
        if isinstance(frame, Hello) and PROTOCOL_VERSION not in frame.versions:
            raise UnsupportedVersion(f"This server speaks version {PROTOCOL_VERSION}.")
        self.state = after

    def close(self) -> None:
        """Nothing may follow."""
        self.state = SessionState.CLOSED


class TokenBucket:
    """Lets `rate` units of work a second pass, `burst` of them at once.

    Source: the token bucket as traffic engineering has it (RFC 2697 describes one).
    """

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._level = float(burst)
        self._updated = now

    def take(self, now: float, amount: float = 1.0) -> None:
        """Takes `amount`; raises `RateLimited` with the time to wait.

        What is more than `burst` is let pass by a full bucket, and paid off afterwards.
        """
        level = self._level + (now - self._updated) * self._rate
        self._updated = now
        if level > self._burst:
            level = self._burst
        lacking = min(amount, self._burst) - level
        if lacking > 0.0:
            self._level = level
            raise RateLimited(retry_after_seconds=lacking / self._rate)
        self._level = level - amount

    def give_back(self, amount: float = 1.0) -> None:
        """What was taken for something that was refused elsewhere."""
        self._level += amount

    def full(self, now: float) -> bool:
        """Whether nothing was taken for so long that the bucket may be forgotten."""
        return self._level + (now - self._updated) * self._rate >= self._burst
