"""Drives one connection: frames in, services called, answers out."""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from trunkline.core.door import check_ids, echo
from trunkline.core.session import ProtocolSession, SessionState
from trunkline.errors import Internal, TooManyRequests, TrunklineError
from trunkline.ports.outlet import Outlet
from trunkline.services.backbone import Backbone
from trunkline.services.drafting import Drafting
from trunkline.services.registry import Connection
from trunkline.wire.close import Close
from trunkline.wire.frames import (
    Ahead,
    ClientFrame,
    Confirm,
    Done,
    Error,
    Goodbye,
    Hello,
    Mark,
    Pull,
    Refresh,
    Sync,
)

_log = structlog.get_logger("trunkline.session")

Spawn = Callable[[Coroutine[Any, Any, None]], object]
Request = Hello | Refresh | Sync | Pull | Confirm | Ahead | Mark

CLOSES: dict[str, Close] = {
    "bad_frame": Close.BAD_FRAME,
    "frame_too_large": Close.FRAME_TOO_LARGE,
    "wrong_order": Close.WRONG_ORDER,
    "unsupported_version": Close.UNSUPPORTED_VERSION,
    "token_invalid": Close.UNAUTHENTICATED,
    "token_missing": Close.UNAUTHENTICATED,
    "token_wrong_user": Close.UNAUTHENTICATED,
    "token_expired": Close.TOKEN_EXPIRED,
}
"""Errors after which the connection closes, and how; all others leave it open."""

HELLO_CLOSES: dict[str, Close] = {
    "invalid_id": Close.BAD_FRAME,
    "shutting_down": Close.SHUTTING_DOWN,
    "overloaded": Close.OVERLOADED,
}
"""The same for what only a refused `hello` closes; any other error of it: `INTERNAL`."""


class ClientSession:
    """One connection's frames, in the order they came.

    Sends go straight to the append queue. Requests (hello, sync, pull, confirm, mark,
    refresh) are served one after the other; `open_requests` of them may wait.
    """

    def __init__(self, backbone: Backbone, outlet: Outlet, name: str, spawn: Spawn) -> None:
        self._backbone = backbone
        self._outlet = outlet
        self._name = name
        self._spawn = spawn
        self._protocol = ProtocolSession()
        settings = backbone.settings
        self._most_items = max(settings.users_per_operation, settings.ranges_per_pull)
        self._requests: deque[Request] = deque()
        self._serving = False
        self._connection: Connection | None = None
        self._drafting: Drafting | None = None
        self._expires_ms = 0
        self._serve: dict[type, Callable[[Any], Awaitable[None]]] = {
            Hello: self._welcome,
            Refresh: self._refresh,
            Sync: self._sync,
            Pull: self._pull,
            Confirm: self._confirm,
            Ahead: self._ahead,
            Mark: self._mark,
        }

    @property
    def ready(self) -> bool:
        """Whether `hello` was accepted."""
        return self._connection is not None

    @property
    def expires_ms(self) -> int:
        """When the token ends, milliseconds since 1970; 0 before `hello`."""
        return self._expires_ms

    def receive(self, data: bytes | memoryview) -> None:
        """Takes one WebSocket message. Never raises: errors are answered."""
        if self._protocol.state is SessionState.CLOSED:
            return
        try:
            frame = self._outlet.encoding.decode_client(data)
        except TrunklineError as error:
            self._answer(error)
            return
        try:
            self._protocol.receive(frame)
            check_ids(frame, most_items=self._most_items)
            if isinstance(frame, Request):
                self._enqueue(frame)
                return
            assert self._drafting is not None
            self._backbone.append.submit(self._drafting.draft(frame), self._open_connection)
        except TrunklineError as error:
            self._answer(error, frame)

    def refuse(self, error: TrunklineError) -> None:
        """Answers an error that concerns no frame in particular."""
        self._answer(error)

    def closed(self) -> None:
        """The socket is gone."""
        self._protocol.close()
        self._requests.clear()
        if self._connection is not None:
            self._backbone.detach(self._connection)

    def _enqueue(self, frame: Request) -> None:
        if isinstance(frame, Hello):
            self._admit(frame)
        elif len(self._requests) >= self._backbone.settings.open_requests:
            raise TooManyRequests(retry_after_seconds=0.1)
        self._requests.append(frame)
        if not self._serving:
            self._serving = True
            self._spawn(self._serve_requests())

    def _admit(self, frame: Hello) -> None:
        """Checks the token at once, so that frames sent right behind `hello` are served."""
        grant, connection = self._backbone.admit(frame, self._outlet, self._name)
        self._expires_ms = grant.expires_ms
        self._connection = connection
        self._drafting = self._backbone.drafting(grant.user)

    async def _serve_requests(self) -> None:
        try:
            while self._requests:
                await self._outlet.drained()
                if not self._requests:
                    return
                frame = self._requests.popleft()
                try:
                    await self._serve[type(frame)](frame)
                except TrunklineError as error:
                    self._answer(error, frame)
                except Exception:  # noqa: BLE001 - a fault of ours: logged, answered, nobody else disturbed
                    _log.exception("request_broke", connection=self._name, frame=type(frame))
                    self._answer(Internal(), frame)
        finally:
            self._serving = False

    async def _welcome(self, frame: Hello) -> None:
        connection = self._open_connection
        await self._backbone.register(connection)
        connection.write(self._backbone.welcome(connection, self._expires_ms))

    async def _refresh(self, frame: Refresh) -> None:
        connection = self._open_connection
        self._expires_ms = self._backbone.refresh(frame.token, connection.user).expires_ms
        self._done(frame.request)

    async def _sync(self, frame: Sync) -> None:
        connection = self._open_connection
        connection.write(await self._backbone.sync(connection, frame))

    async def _pull(self, frame: Pull) -> None:
        connection = self._open_connection
        connection.write(await self._backbone.pulls.pull(connection, frame))

    async def _confirm(self, frame: Confirm) -> None:
        connection = self._open_connection
        await self._backbone.syncs.confirm(connection, frame)
        if frame.request:
            proofs = await self._backbone.claims.proofs(connection.user, frame)
            connection.write(Done(frame.request, proofs))

    async def _ahead(self, frame: Ahead) -> None:
        connection = self._open_connection
        connection.write(await self._backbone.claims.answer(connection, frame))

    async def _mark(self, frame: Mark) -> None:
        await self._backbone.markers.mark(self._open_connection, frame)
        self._done(frame.request)

    @property
    def _open_connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def _done(self, request: int) -> None:
        if request:
            self._open_connection.write(Done(request))

    def _answer(self, error: TrunklineError, frame: ClientFrame | None = None) -> None:
        """Sends the error, and where the protocol says so closes after it."""
        close = CLOSES.get(error.code)
        if close is None and isinstance(frame, Hello):
            close = HELLO_CLOSES.get(error.code, Close.INTERNAL)
        if frame is None or close is not None:
            self._write(self._backbone.refusals.error(error))
        else:
            id_, conversation = echo(frame)
            self._write(
                self._backbone.refusals.error(
                    error, id=id_, conversation=conversation, request=getattr(frame, "request", 0)
                )
            )
        if close is not None:
            self.say_goodbye(close, error)

    def say_goodbye(self, close: Close, error: TrunklineError) -> None:
        """Tells the client why, and whether to come back, then closes; once."""
        if self._protocol.state is SessionState.CLOSED:
            return
        self._protocol.close()
        self._requests.clear()
        self._backbone.metrics.closed.labels(close.name.lower()).inc()
        self._write(Goodbye.of(error, reconnect=close.reconnect))
        self._outlet.close(close, error.code)

    def _write(self, frame: Error | Goodbye) -> None:
        if self._connection is not None:
            self._connection.flush_acks()
        self._outlet.write(self._outlet.encoding.encode(frame))
