"""Drives an endpoint for as long as the client lives: connect, serve, come back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from trunkline.client.backoff import Backoff
from trunkline.client.connection import Connection, ConnectionLost, wait_for
from trunkline.client.endpoint import Endpoint
from trunkline.client.link import Dialer
from trunkline.client.policy import SyncPolicy
from trunkline.client.session import Session
from trunkline.errors import TokenExpired, TrunklineError
from trunkline.ports.clock import Clock
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import Hello

STEADY_SECONDS: Final = 5.0
"""A connection that lasted so long was a success: the next delay starts small again."""
EXPIRED_MAX: Final = 3
"""So many expired tokens in a row mean that the callback has no better one."""

TokenSource = str | Callable[[], Awaitable[str]]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a client connects.

    `window`: sends in flight. `push` false: only sends, keeps no copies. `first_seconds`
    and `most_seconds` bound the reconnect delays (full jitter).
    """

    encoding: Encoding
    window: int
    push: bool
    agent: str
    first_seconds: float
    most_seconds: float


class Driver:
    """Comes back after every loss, until stopped or refused for good."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialer: Dialer,
        token: TokenSource,
        policy: SyncPolicy,
        settings: Settings,
        clock: Clock,
        uniform: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._dialer = dialer
        self._token = token
        self._policy = policy
        self._settings = settings
        self._clock = clock
        self._uniform = uniform
        self._backoff = Backoff(
            uniform,
            first_seconds=settings.first_seconds,
            most_seconds=settings.most_seconds,
        )
        self._expired = 0
        self._session: Session | None = None
        self._connection: Connection | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Runs until `stop`; a refusal that no retry mends fails the endpoint."""
        while not self._stop.is_set():
            started = self._clock.monotonic()
            try:
                await self._serve()
            except TrunklineError as error:
                if self._stop.is_set():
                    return
                if self._clock.monotonic() - started > STEADY_SECONDS:
                    self._backoff.succeeded()
                if not self._worth_coming_back(error):
                    cause = error.cause if isinstance(error, ConnectionLost) else error
                    self._endpoint.fail(cause)
                    return
                self._endpoint.report(error)
                await wait_for(self._stop, self._backoff.failed(error))

    async def stop(self) -> None:
        """Saves, confirms and closes; `run` returns."""
        self._stop.set()
        if self._session is not None:
            await self._session.finish()

    def drop(self) -> None:
        """Cuts the connection without a word, as a bad network does; it comes back."""
        if self._connection is not None:
            self._connection.abandon("The connection was dropped on purpose.")

    async def _serve(self) -> None:
        """One connection, from token to end."""
        endpoint, settings = self._endpoint, self._settings
        if endpoint.has_changes:
            await endpoint.save()
        connection = self._connection = Connection(settings.encoding)
        try:
            hello = Hello(
                await self._new_token(),
                endpoint.endpoint,
                user=endpoint.user,
                push=settings.push,
                agent=settings.agent,
            )
            welcome = await connection.open(self._dialer, hello)
            self._expired = 0
            await endpoint.meet(welcome.store, welcome.time_ms)
            self._session = Session(
                endpoint,
                connection,
                welcome,
                self._policy,
                self._clock,
                self._uniform,
                window=settings.window,
                push=settings.push,
                new_token=None if isinstance(self._token, str) else self._token,
            )
            await self._session.run()
        finally:
            self._session = None
            self._connection = None
            await connection.close()

    async def _new_token(self) -> str:
        return self._token if isinstance(self._token, str) else await self._token()

    def _worth_coming_back(self, error: TrunklineError) -> bool:
        cause = error.cause if isinstance(error, ConnectionLost) else error
        if isinstance(cause, TokenExpired) and not isinstance(self._token, str):
            self._expired += 1
            return self._expired < EXPIRED_MAX
        return error.reconnect if isinstance(error, ConnectionLost) else error.retryable
