"""Makes a network unruly: connections drop, sends are doubled, pushes are lost, doubled, late.

Only what a network, a proxy or a dying server can do to a client happens here: a send may
arrive twice, everything may stop at any frame, a push (a hint) may be lost, doubled or
overtaken; what answers a request stays in order for as long as the connection lives.
"""

import asyncio
from random import Random
from typing import Final

import msgspec

from trunkline.client.link import ABNORMAL, Dialer, Link, Receiver
from trunkline.wire.encoding import Encoding

_TAG_BYTES: Final = 12
_SEND: Final = b"\xa1t\xa4send"
_PUSH: Final = b"\xa1t\xa4push"


class Unruliness(msgspec.Struct, frozen=True):
    """How often what happens, as a share of frames, and how late late is."""

    dropped_connections: float = 0.006
    doubled_sends: float = 0.05
    lost_pushes: float = 0.01
    doubled_pushes: float = 0.03
    late: float = 0.03
    late_seconds: float = 0.05


class Havoc(msgspec.Struct):
    """What was done so far."""

    dropped_connections: int = 0
    doubled_sends: int = 0
    lost_pushes: int = 0
    doubled_pushes: int = 0
    late: int = 0


class UnrulyDialer:
    """A dialer whose links misbehave; the peer still speaks over a real one."""

    def __init__(self, dialer: Dialer, random: Random, unruliness: Unruliness) -> None:
        self._dialer = dialer
        self.random = random
        self.unruliness = unruliness
        self.havoc = Havoc()

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        """Opens a link; raises `Unreachable` as the dialer beneath does."""
        unruly = _UnrulyLink(self, receiver)
        unruly.link = await self._dialer.dial(unruly, encoding)
        return unruly

    def happens(self, share: float) -> bool:
        """Whether something that happens to this share of frames happens now."""
        return self.random.random() < share


class _UnrulyLink:
    """Stands between a client and its link, in both directions."""

    def __init__(self, network: UnrulyDialer, receiver: Receiver) -> None:
        self._network = network
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._held_back: list[bytes] = []
        self._dead = False
        self.link: Link | None = None

    # --- to the server ------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        if self._dead or self._cut():
            return
        network = self._network
        if self._held_back:
            self._held_back.append(frame)
        elif network.happens(network.unruliness.late):
            network.havoc.late += 1
            self._held_back.append(frame)
            self._loop.call_later(self._delay(), self._let_go)
        else:
            self._pass_on(frame)

    def close(self, code: int) -> None:
        self._let_go()
        if self.link is not None:
            self.link.close(code)

    def _let_go(self) -> None:
        frames, self._held_back = self._held_back, []
        if not self._dead:
            for frame in frames:
                self._pass_on(frame)

    def _pass_on(self, frame: bytes) -> None:
        assert self.link is not None
        self.link.send(frame)
        network = self._network
        if _SEND in frame[:_TAG_BYTES] and network.happens(network.unruliness.doubled_sends):
            network.havoc.doubled_sends += 1
            self.link.send(frame)

    # --- from the server ----------------------------------------------------------------

    def frame_arrived(self, frame: bytes) -> None:
        if self._dead or self._cut():
            return
        if _PUSH in frame[:_TAG_BYTES]:
            self._push_arrived(frame)
        else:
            self._receiver.frame_arrived(frame)

    def link_closed(self, code: int, reason: str) -> None:
        if not self._dead:
            self._dead = True
            self._receiver.link_closed(code, reason)

    def _push_arrived(self, frame: bytes) -> None:
        network, unruliness = self._network, self._network.unruliness
        if network.happens(unruliness.lost_pushes):
            network.havoc.lost_pushes += 1
            return
        if network.happens(unruliness.doubled_pushes):
            network.havoc.doubled_pushes += 1
            self._loop.call_later(self._delay(), self._arrive_late, frame)
        if network.happens(unruliness.late):
            network.havoc.late += 1
            self._loop.call_later(self._delay(), self._arrive_late, frame)
        else:
            self._receiver.frame_arrived(frame)

    def _arrive_late(self, frame: bytes) -> None:
        if not self._dead:
            self._receiver.frame_arrived(frame)

    # --- the end ------------------------------------------------------------------------

    def _cut(self) -> bool:
        """Ends the connection now and then, at this very frame; returns whether it did."""
        network = self._network
        if self.link is None or not network.happens(network.unruliness.dropped_connections):
            return False
        network.havoc.dropped_connections += 1
        self._dead = True
        self.link.close(ABNORMAL)
        # Not from within the call that sends or receives: a receiver is never re-entered.
        self._loop.call_soon(self._receiver.link_closed, ABNORMAL, "")
        return True

    def _delay(self) -> float:
        return self._network.random.random() * self._network.unruliness.late_seconds
