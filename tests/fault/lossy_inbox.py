"""What Redis sends to the workers' inboxes is lost or late on its way; all else goes through.

Redis promises nothing about pub/sub: a message that a subscriber's connection lost is gone, and
the publisher was told that it had been heard. So it is dropped behind the server, by a proxy in
front of it that knows the frames of its protocol (RESP2).
"""

from __future__ import annotations

import random

_SUBSCRIBED = b"*3\r\n$10\r\nssubscribe\r\n"
_MESSAGE = b"*3\r\n$8\r\nsmessage\r\n"


class Weather:
    """What befalls the messages to all inboxes, from now on.

    Attributes:
        loss: the share that is dropped, 0 to 1.
        late: all are kept back; they come, in their order, with the first after that.
        dropped: how many were.
    """

    def __init__(self, chance: random.Random) -> None:
        self.loss = 0.0
        self.late = False
        self.dropped = 0
        self._chance = chance

    def drops(self) -> bool:
        """Whether the next message is dropped."""
        dropped = self._chance.random() < self.loss
        self.dropped += dropped
        return dropped

    def inbox(self) -> LossyInbox:
        """What one connection's bytes go through."""
        return LossyInbox(self)


class LossyInbox:
    """The bytes that Redis sends over one connection; only a subscribed one loses any."""

    # `_arrived`: what has not gone on yet; before the subscription, the last that has.

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._subscribed = False
        self._arrived = b""
        self._kept = b""

    def __call__(self, data: bytes) -> bytes:
        """What goes on of what came."""
        if not self._subscribed:
            seen = self._arrived + data
            _, mark, after = seen.partition(_SUBSCRIBED)
            if not mark:
                self._arrived = seen[1 - len(_SUBSCRIBED) :]
                return data
            self._subscribed = True
            # What is left of the answer looks like frames, too.
            self._arrived = after
            return data[: len(data) - len(after)] + self._through()
        self._arrived += data
        return self._through()

    def _through(self) -> bytes:
        passed = b""
        while end := frame_end(self._arrived, 0):
            frame, self._arrived = self._arrived[:end], self._arrived[end:]
            if not frame.startswith(_MESSAGE):
                passed += frame
            elif not self._weather.drops():
                self._kept += frame
        if not self._weather.late:
            passed, self._kept = passed + self._kept, b""
        return passed


def frame_end(data: bytes, start: int) -> int:
    """Where the RESP2 frame ends that begins at `start`; 0 if not all of it has come.

    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    line_end = data.find(b"\r\n", start) + 2
    if line_end < 2:
        return 0
    kind, number = data[start : start + 1], data[start + 1 : line_end - 2]
    if kind == b"$":
        end = line_end + int(number) + 2
        return end if len(data) >= end else 0
    if kind == b"*":
        end = line_end
        for _ in range(int(number)):
            end = frame_end(data, end)
            if not end:
                return 0
        return end
    return line_end
