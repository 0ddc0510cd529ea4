"""Drives the outbox over one connection: what is sent when, and what the answers mean."""

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.client.backoff import Backoff, Pace
from trunkline.client.connection import Connection, as_error
from trunkline.client.endpoint import Endpoint
from trunkline.client.outbox import Posted, SentMessage
from trunkline.errors import ConversationShredded, FrameTooLarge, ShardMoved, TrunklineError
from trunkline.model import Entry, Kind
from trunkline.ports.clock import Clock
from trunkline.wire.frames import Ack, Error, Limits, Send

MOVED_MAX: Final = 3
"""So many pauses for a shard that moved are made; then another worker may have it."""


class Sending:
    """Sends in order, up to `window` in flight; pauses and resends after retryable errors."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        limits: Limits,
        clock: Clock,
        uniform: Callable[[], float],
        *,
        window: int,
        keeps_copies: bool,
    ) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._clock = clock
        self._window = window
        self._keeps_copies = keeps_copies
        self._frame_bytes_max = limits.frame_bytes
        self._pace = Pace(limits.sends_per_second, limits.send_burst, clock.monotonic())
        self._backoff = Backoff(uniform, first_seconds=0.2, most_seconds=30.0)
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._moved = 0
        self._stopped = False

    def pump(self) -> None:
        """Sends what may be sent now."""
        outbox = self._endpoint.outbox
        now = self._clock.monotonic()
        if self._stopped or self._timer is not None:
            return
        if now < self._paused_until:
            self._later(self._paused_until - now)
            return
        while outbox.has_room(self._window):
            wait_seconds = self._pace.wait_seconds(now)
            if wait_seconds:
                self._later(wait_seconds)
                return
            self._send(outbox.next(now))

    def stop(self) -> None:
        """The connection is gone: what is in flight will be sent again over the next."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._endpoint.outbox.connection_lost()

    def acked(self, ack: Ack) -> None:
        """The server stored it."""
        endpoint = self._endpoint
        posted = endpoint.outbox.answered(ack.conversation, ack.id)
        now = self._clock.monotonic()
        if posted is None or ack.duplicate or not isinstance(posted.frame, Send):
            if self._keeps_copies:
                endpoint.replica.reached(ack.conversation, ack.seq, now)
        elif self._keeps_copies:
            frame = posted.frame
            entry = Entry(
                ack.seq,
                endpoint.user,
                ack.time_ms,
                frame.body,
                Kind.MESSAGE,
                frame.content_type,
                frame.refers_to,
            )
            endpoint.replica.own(ack.conversation, entry, now)
        if posted is not None:
            self._backoff.succeeded()
            self._settle(
                posted, SentMessage(ack.id, ack.conversation, ack.seq, ack.time_ms, ack.duplicate)
            )

    def refused(self, frame: Error) -> None:
        """The server did not store it: for ever, or it is sent again after a pause."""
        posted = self._endpoint.outbox.answered(frame.conversation, frame.id)
        if posted is None:
            return
        error = as_error(frame)
        if not (frame.retryable or error.retryable):
            if not posted.awaited:
                self._endpoint.report(error)
            if isinstance(error, ConversationShredded) and self._keeps_copies:
                self._endpoint.replica.shredded(posted.conversation)
            self._settle(posted, error)
            self.pump()
            return
        self._endpoint.outbox.again(posted)
        now = self._clock.monotonic()
        # One pause for all that was refused together.
        if now >= self._paused_until:
            self._paused_until = now + self._backoff.failed(error)
            self._moved += isinstance(error, ShardMoved)
            if self._moved > MOVED_MAX:
                self._connection.abandon("This worker does not get back a shard that moved.")
                return
            self.pump()

    def _send(self, posted: Posted) -> None:
        data = self._connection.encode(posted.frame)
        if len(data) > self._frame_bytes_max > 0:
            self._settle(posted, FrameTooLarge())
            return
        if posted.sent:
            self._endpoint.replica.counters.resent += 1
        posted.sent = True
        self._connection.send_encoded(data)

    def _settle(self, posted: Posted, outcome: SentMessage | TrunklineError) -> None:
        outbox = self._endpoint.outbox
        outbox.settled(posted)
        posted.settle(outcome)
        if not outbox:
            self._endpoint.emptied.set()

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self.pump()
