"""Asks the server, over a connection of its own, what a user's views and their digests are.

An endpoint compares digests by itself, but only of what a sync lists to it. A replay wants
the server's word on every view: it asks as an endpoint that holds nothing.
"""

import asyncio
from collections import deque
from typing import Final

from trunkline.client.link import Dialer, Link
from trunkline.core.digest import to_hex, vector_digest
from trunkline.errors import ProtocolError, Unreachable, from_code
from trunkline.model import ConversationId, EndpointId, UserId
from trunkline.replay.participants import TokenOf
from trunkline.wire.close import Close
from trunkline.wire.encoding import MESSAGEPACK
from trunkline.wire.frames import (
    Changed,
    Error,
    Goodbye,
    Hello,
    Limits,
    ServerFrame,
    Sync,
    Synced,
    Welcome,
)

_ENDPOINT: Final = EndpointId("replay-witness")
_NOTHING: Final = to_hex(vector_digest({}))
_ANSWER_SECONDS: Final = 60.0


class Witness:
    """What the server says of users' views."""

    def __init__(self, dialer: Dialer, token_of: TokenOf) -> None:
        self._dialer = dialer
        self._token_of = token_of

    async def limits(self, user: UserId) -> Limits:
        """What the server accepts. Raises `Unreachable`, `Unauthenticated`."""
        conversing = await self._greet(user)
        try:
            return (await conversing.welcome()).limits
        finally:
            conversing.end()

    async def views(self, user: UserId) -> dict[ConversationId, Changed]:
        """Every view of the user with its range and digest, as they are now."""
        views: dict[ConversationId, Changed] = {}
        conversing = await self._greet(user)
        try:
            following = ""
            # A sync may go out right behind the greeting.
            conversing.ask(following)
            await conversing.welcome()
            while True:
                page = await conversing.page()
                views.update((changed.conversation, changed) for changed in page.conversations)
                if not page.next:
                    return views
                conversing.ask(page.next)
        finally:
            conversing.end()

    async def _greet(self, user: UserId) -> "_Conversing":
        conversing = _Conversing()
        conversing.link = await self._dialer.dial(conversing, MESSAGEPACK)
        hello = Hello(self._token_of(user), _ENDPOINT, user=user, push=False)
        conversing.link.send(MESSAGEPACK.encode(hello))
        return conversing


class _Conversing:
    """One connection: a greeting, then one question after the other."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self._frames: deque[bytes] = deque()  # at most the answers to what was asked
        self._arrived = asyncio.Event()
        self._closed = False
        self._asked = 0

    def frame_arrived(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._arrived.set()

    def link_closed(self, code: int, reason: str) -> None:
        self._closed = True
        self._arrived.set()

    def ask(self, following: str) -> None:
        """Asks for a page of all views."""
        assert self.link is not None
        self._asked += 1
        frame = Sync(self._asked, vector_digest=_NOTHING, next=following)
        self.link.send(MESSAGEPACK.encode(frame))

    async def welcome(self) -> Welcome:
        """The answer to the greeting."""
        frame = await self._next()
        if not isinstance(frame, Welcome):
            raise ProtocolError("The server did not greet.")
        return frame

    async def page(self) -> Synced:
        """The answer to what was asked last."""
        frame = await self._next()
        if not isinstance(frame, Synced) or frame.vector_wanted:
            raise ProtocolError("The server did not answer the sync.")
        return frame

    def end(self) -> None:
        """Closes the connection."""
        if self.link is not None and not self._closed:
            self.link.close(Close.NORMAL)

    async def _next(self) -> ServerFrame:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while not self._frames:
                    if self._closed:
                        raise Unreachable("The server closed the connection.")
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise Unreachable("The server does not answer.") from None
        frame = MESSAGEPACK.decode_server(self._frames.popleft())
        if isinstance(frame, Error | Goodbye):
            raise from_code(frame.code, frame.message)
        return frame
