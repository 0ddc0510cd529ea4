"""Drives an endpoint over one connection: receives, sends, pulls, saves, confirms."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final

from trunkline.client.connection import (
    FRAMES_AT_A_TIME,
    Answer,
    Connection,
    ConnectionLost,
    wait_for,
)
from trunkline.client.endpoint import Endpoint, no_connection
from trunkline.client.policy import SyncPolicy
from trunkline.client.pulling import Pulling
from trunkline.client.sending import Sending
from trunkline.errors import AheadOfHead, StoreOfAnotherEndpoint, TrunklineError
from trunkline.model import ConversationId, Seq
from trunkline.ports.clock import Clock
from trunkline.wire.frames import (
    Acked,
    ClientFrame,
    Confirm,
    Done,
    Error,
    Mark,
    Notice,
    Push,
    Refresh,
    ServerFrame,
    Welcome,
)

CONFIRM_SECONDS: Final = 0.2
"""Saving and confirming happen at most so often."""
SAVE_ENTRIES: Final = 4096
"""So many unsaved entries are saved at once."""
RETRY_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 5.0
ACK_SECONDS: Final = 60.0
"""A send unanswered for so long ends the connection: it is half open."""
OFFSETS_MAX: Final = 1000
"""So many conversations stand in one `confirm`."""
FINISH_SECONDS: Final = 5.0
"""Leaving waits at most so long for the server."""
REFRESH_SHARE: Final = 0.8
"""A token is renewed after this share of its life."""


class Session:
    """One connection's work."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        welcome: Welcome,
        policy: SyncPolicy,
        clock: Clock,
        uniform: Callable[[], float],
        *,
        window: int,
        push: bool,
        new_token: Callable[[], Awaitable[str]] | None,
    ) -> None:
        if welcome.user != endpoint.user:
            raise StoreOfAnotherEndpoint(
                f"The token is {welcome.user!r}'s, the local store {endpoint.user!r}'s."
            )
        self._endpoint = endpoint
        self._connection = connection
        self._clock = clock
        self._push = push
        self._new_token = new_token
        self._token_seconds = (welcome.token_expires_ms - welcome.time_ms) / 1000
        self._failure: TrunklineError | None = None
        self._sending = Sending(
            endpoint,
            connection,
            welcome.limits,
            clock,
            uniform,
            window=window,
            keeps_copies=push,
        )
        self._pulling = Pulling(
            endpoint, connection, policy, clock, uniform, self._save_and_confirm
        )
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()

    async def run(self) -> None:
        """Serves until the connection ends; raises why: `ConnectionLost`, or what failed."""
        endpoint = self._endpoint
        endpoint.wake = self._wake
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [tasks.create_task(self._guard(work)) for work in self._work()]
                self._wake()
                lost = await self._receive()
                for worker in workers:
                    worker.cancel()
            raise self._failure or lost
        finally:
            endpoint.wake = no_connection
            self._sending.stop()
            if endpoint.failure is None:
                endpoint.settled.clear()

    async def finish(self) -> None:
        """Saves, confirms what was saved, and closes the connection."""
        try:
            # Without a connection the offsets are confirmed after the next one's hello.
            with suppress(ConnectionLost):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self._save_and_confirm()
        except TimeoutError:
            self._connection.abandon("The server did not take the last confirm in time.")
        finally:
            await self._connection.close()

    def _work(self) -> list[Callable[[], Awaitable[None]]]:
        work: list[Callable[[], Awaitable[None]]] = [self._keep]
        if self._push:
            work.append(self._pulling.run)
        if self._new_token is not None and self._token_seconds > 0:
            work.append(self._refresh)
        return work

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """What fails in the background ends the connection, and `run` raises it."""
        try:
            await work()
        except ConnectionLost:
            return  # the receiver sees it too
        except TrunklineError as error:
            self._failure = error
            self._connection.abandon("The client ended the connection after an error.")

    def _wake(self) -> None:
        """The application posted, opened or marked something."""
        self._sending.pump()
        self._after_frames()

    # --- receiving ------------------------------------------------------------------

    async def _receive(self) -> TrunklineError:
        """Takes frames until the end; returns why it ended."""
        while True:
            try:
                frames = await self._connection.receive()
                now = self._clock.monotonic()
                for frame in frames:
                    self._take(frame, now)
            except TrunklineError as error:
                self._connection.abandon("The client ended the connection after an error.")
                self._connection.fail_requests()
                return error
            self._after_frames()
            if len(frames) >= FRAMES_AT_A_TIME:
                await asyncio.sleep(0)

    def _take(self, frame: ServerFrame, now: float) -> None:
        if isinstance(frame, Push):
            if self._push and frame.entries:
                self._endpoint.replica.push(frame.conversation, frame.entries, now)
        elif isinstance(frame, Acked):
            for ack in frame.acks:
                self._sending.acked(ack)
            self._sending.pump()
        elif isinstance(frame, Error):
            self._sending.refused(frame)
        elif isinstance(frame, Notice):
            self._endpoint.replica.want_sync()

    def _after_frames(self) -> None:
        endpoint = self._endpoint
        if self._push:
            self._pulling.look()
        if endpoint.has_changes or endpoint.marks:
            self._dirty.set()
            if endpoint.replica.unwritten_entries > SAVE_ENTRIES:
                self._full.set()

    # --- keeping --------------------------------------------------------------------

    async def _keep(self) -> None:
        """Saves and confirms, coalesced; ends a connection on which sends get no answer."""
        loop = asyncio.get_running_loop()
        while True:
            if not await wait_for(self._dirty, WATCH_SECONDS):
                self._endpoint.replica.note_proofs()
                await self._endpoint.save()
            else:
                # On the same beat for all clients of a process: they share one commit.
                await wait_for(self._full, CONFIRM_SECONDS - loop.time() % CONFIRM_SECONDS)
                self._dirty.clear()
                self._full.clear()
                await self._save_and_confirm()
                await self._send_marks()
            oldest = self._endpoint.outbox.oldest_in_flight
            if oldest is not None and self._clock.monotonic() - oldest > ACK_SECONDS:
                self._connection.abandon("A send was not answered in time.")
                return

    async def _save_and_confirm(self) -> None:
        """Confirms only what is durable (DESIGN section 4)."""
        replica = self._endpoint.replica
        if replica.doubts.are_open:
            await self._endpoint.save()
            return  # what the store may have lost is not confirmed
        offsets = replica.take_offsets()
        try:
            await self._endpoint.save()
            while self._push and offsets:
                part = dict(islice(offsets.items(), OFFSETS_MAX))
                if not await self._confirm(part):
                    self._dirty.set()
                    return
                for conversation in part:
                    del offsets[conversation]
        finally:
            replica.unconfirm(offsets)

    async def _confirm(self, offsets: dict[ConversationId, Seq]) -> bool:
        """Confirms; one refused conversation does not hold up the others."""
        refused = await self._tell(
            lambda number: Confirm(offsets, number), lambda done: self._proved(offsets, done)
        )
        if isinstance(refused, AheadOfHead):
            self._endpoint.doubt()
        if refused is None or len(offsets) == 1:
            return refused is None or not refused.retryable
        if refused.retryable:
            return False
        for conversation, seq in offsets.items():
            if not await self._confirm({conversation: seq}):
                return False
        return True

    def _proved(self, offsets: dict[ConversationId, Seq], answer: Answer) -> None:
        if isinstance(answer, Done):
            for conversation, proof in answer.proofs.items():
                self._endpoint.replica.proved(conversation, offsets[conversation], proof)

    async def _send_marks(self) -> None:
        if self._endpoint.replica.doubts.are_open:
            return
        marks = self._endpoint.marks
        for conversation, seq in list(marks.items()):
            refused = await self._tell(partial(Mark, conversation, seq))
            if refused is not None and refused.retryable:
                self._dirty.set()
                return
            if marks.get(conversation) == seq:
                del marks[conversation]
                self._endpoint.replica.marked(conversation)

    async def _tell(
        self,
        frame_of: Callable[[int], ClientFrame],
        taken: Callable[[Answer], None] = lambda _: None,
    ) -> TrunklineError | None:
        """A request whose answer is only that it was done; returns why it was not.

        After an error that a retry may mend it waits before it returns.
        """
        try:
            taken(await self._connection.request(frame_of))
        except ConnectionLost:
            raise
        except TrunklineError as error:
            self._endpoint.report(error)
            if error.retryable:
                await asyncio.sleep(error.retry_after_seconds or RETRY_SECONDS)
            return error
        return None

    async def _refresh(self) -> None:
        """Gives the server a new token before the old one expires."""
        assert self._new_token is not None
        while True:
            await asyncio.sleep(self._token_seconds * REFRESH_SHARE)
            self._connection.send(Refresh(await self._new_token()))
