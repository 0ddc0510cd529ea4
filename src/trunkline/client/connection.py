"""Drives one link: hello and welcome, frames in order, numbered requests, why it ended."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from trunkline.client.link import ABNORMAL, Dialer, Link
from trunkline.errors import BY_CODE, ProtocolError, TrunklineError, Unreachable, from_code
from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import (
    ClientFrame,
    Done,
    Error,
    Goodbye,
    Hello,
    Pulled,
    ServerFrame,
    Synced,
    Welcome,
)

FRAMES_AT_A_TIME: Final = 256
HELLO_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 2.0
_KNOWN_CLOSES: Final = frozenset(Close)
_ERROR_OF_CLOSE: Final = {
    Close.BAD_FRAME: "bad_frame",
    Close.WRONG_ORDER: "wrong_order",
    Close.UNSUPPORTED_VERSION: "unsupported_version",
    Close.UNAUTHENTICATED: "token_invalid",
    Close.TOKEN_EXPIRED: "token_expired",
    Close.FRAME_TOO_LARGE: "frame_too_large",
    Close.SHUTTING_DOWN: "shutting_down",
    Close.OVERLOADED: "overloaded",
}
_TOO_BIG: Final = 1009

Answer = Pulled | Synced | Done


class ConnectionLost(Unreachable):
    """The connection ended; `cause` says why, `reconnect` whether to come back unchanged."""

    def __init__(self, cause: TrunklineError, *, reconnect: bool) -> None:
        super().__init__(cause.detail, retry_after_seconds=cause.retry_after_seconds)
        self.cause = cause
        self.reconnect = reconnect


class Connection:
    """A link to the server, from hello to its end."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._link: Link | None = None
        # Emptied in every turn of the loop in which something came: the link's own read
        # buffer bounds it.
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        self._close_code = ABNORMAL
        self._close_reason = ""
        self._goodbye: Goodbye | None = None
        self._refusal: Error | None = None
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        self._next_request = 1

    # --- the link's side ----------------------------------------------------------------

    def frame_arrived(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._arrived.set()

    def link_closed(self, code: int, reason: str) -> None:
        self._close_code, self._close_reason = code, reason
        self._ended.set()
        self._arrived.set()

    # --- the client's side --------------------------------------------------------------

    async def open(self, dialer: Dialer, hello: Hello) -> Welcome:
        """Dials and greets; raises `Unreachable`, or `ConnectionLost` if refused."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                self._link = await dialer.dial(self, self._encoding)
                self.send(hello)
                while True:
                    if self._frames:
                        # What follows the welcome stays for `receive`.
                        frame = self._decode(self._frames.popleft())
                        if isinstance(frame, Welcome):
                            return frame
                        self._note(frame)
                    elif self._ended.is_set():
                        raise self.lost()
                    else:
                        self._arrived.clear()
                        await self._arrived.wait()
        except TimeoutError:
            raise Unreachable("The server did not answer the greeting in time.") from None

    def send(self, frame: ClientFrame) -> None:
        """Sends one frame; after the end it is dropped."""
        self.send_encoded(self._encoding.encode(frame))

    def encode(self, frame: ClientFrame) -> bytes:
        """A frame as it goes over this link."""
        return self._encoding.encode(frame)

    def send_encoded(self, frame: bytes) -> None:
        """Sends what `encode` made."""
        if self._link is not None and not self._ended.is_set():
            self._link.send(frame)

    async def request(self, frame_of: Callable[[int], ClientFrame]) -> Answer:
        """Sends a request with the next number and returns its answer.

        Raises what the server answered, or `ConnectionLost`. No answer in time ends the
        connection: it is half open.
        """
        number = self._next_request
        self._next_request += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            if self._ended.is_set():
                raise self.lost()
            self.send(frame_of(number))
            async with asyncio.timeout(REQUEST_SECONDS):
                return await future
        except TimeoutError:
            self.abandon("A request was not answered in time.")
            raise self.lost() from None
        finally:
            self._requests.pop(number, None)

    async def receive(self) -> list[ServerFrame]:
        """The frames that came and answer no request; raises `ConnectionLost` at the end."""
        while not self._frames:
            if self._ended.is_set():
                self.fail_requests()
                raise self.lost()
            self._arrived.clear()
            await self._arrived.wait()
        frames: list[ServerFrame] = []
        for _ in range(min(len(self._frames), FRAMES_AT_A_TIME)):
            frame = self._decode(self._frames.popleft())
            if not self._note(frame):
                frames.append(frame)
        return frames

    def abandon(self, why: str, *, code: int = Close.NORMAL) -> None:
        """Ends the connection from this side; it is worth coming back."""
        if not self._ended.is_set():
            self._refusal = None
            self._close_reason = why
            self._ended.set()
            self._arrived.set()
            if self._link is not None:
                self._link.close(code)

    async def close(self) -> None:
        """Closes the link and waits, briefly, until it is gone."""
        link, self._link = self._link, None
        if link is None or self._ended.is_set():
            self.fail_requests()
            return
        link.close(Close.NORMAL)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            self._ended.set()
        self.fail_requests()

    def lost(self) -> ConnectionLost:
        """Why the connection ended, and whether to come back."""
        if (goodbye := self._goodbye) is not None:
            cause = from_code(
                goodbye.code, goodbye.message, retry_after_seconds=goodbye.retry_after_seconds
            )
            return ConnectionLost(cause, reconnect=goodbye.reconnect)
        reconnect = self._close_code != _TOO_BIG
        name = ""
        if self._close_code in _KNOWN_CLOSES:
            close = Close(self._close_code)
            reconnect = close.reconnect or close is Close.NORMAL
            name = _ERROR_OF_CLOSE.get(close, "")
        if (refusal := self._refusal) is not None:
            cause = from_code(refusal.code, refusal.message)
        else:
            detail = self._close_reason or f"The connection ended with code {self._close_code}."
            cause = BY_CODE.get(name, Unreachable)(detail)
        return ConnectionLost(cause, reconnect=reconnect)

    def _decode(self, data: bytes) -> ServerFrame:
        try:
            return self._encoding.decode_server(data)
        except ProtocolError:
            self.abandon("The server's frame is not valid.", code=Close.BAD_FRAME)
            raise

    def _note(self, frame: ServerFrame) -> bool:
        """Takes answers and what concerns the connection itself; False if it is neither."""
        if isinstance(frame, Pulled | Synced | Done):
            future = self._requests.get(frame.request)
            if future is not None and not future.done():
                future.set_result(frame)
            return True
        if isinstance(frame, Error) and not frame.id:
            self._note_error(frame)
            return True
        if isinstance(frame, Goodbye):
            self._goodbye = frame
            return True
        return isinstance(frame, Welcome)

    def _note_error(self, frame: Error) -> None:
        future = self._requests.get(frame.request)
        if not frame.request:
            self._refusal = frame
        elif future is not None and not future.done():
            future.set_exception(as_error(frame))

    @property
    def has_ended(self) -> bool:
        """Whether what is sent now is dropped."""
        return self._ended.is_set()

    def fail_requests(self) -> None:
        """Ends the waits for answers that will not come."""
        for future in self._requests.values():
            if not future.done():
                future.set_exception(self.lost())


def as_error(frame: Error) -> TrunklineError:
    """The error that an error frame carries."""
    return from_code(
        frame.code, frame.message, retry_after_seconds=frame.retry_after_seconds or None
    )


async def wait_for(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits until the event is set, at most `seconds`; returns whether it was."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
