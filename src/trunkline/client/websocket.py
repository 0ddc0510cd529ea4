"""Drives the real link: a WebSocket by picows."""

import asyncio

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from trunkline.client.link import ABNORMAL, Link, Receiver
from trunkline.errors import Redirected, Unreachable
from trunkline.wire.encoding import Encoding

_FRAME_BYTES_MAX = 64 << 20
_READ_BUFFER_BYTES = 8 << 10
_HANDSHAKE_SECONDS = 10.0
_PING_AFTER_SECONDS = 20.0
_DATA = (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CONTINUATION)


class WebSocketDialer:
    """Dials one WebSocket URL, such as ws://127.0.0.1:8470/v1."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        """Opens the connection; raises `Unreachable`, also `Redirected`: it goes nowhere else."""
        link = _WebSocketLink(receiver, binary=encoding.binary)
        try:
            await ws_connect(
                lambda: link,
                self._url,
                websocket_handshake_timeout=_HANDSHAKE_SECONDS,
                enable_auto_ping=True,
                auto_ping_idle_timeout=_PING_AFTER_SECONDS,
                auto_ping_reply_timeout=_PING_AFTER_SECONDS,
                auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
                max_frame_size=_FRAME_BYTES_MAX,
                read_buffer_init_size=_READ_BUFFER_BYTES,
                extra_headers={"Sec-WebSocket-Protocol": encoding.subprotocol},
                max_redirects=0,  # `hello` holds a token: it is for this address alone
            )
        except WSHandshakeError as error:
            response = error.response
            if response is None or not 300 <= response.status < 400:
                raise Unreachable(f"{self._url} cannot be reached: {error}") from error
            raise Redirected(
                f"{self._url} answers with a redirect to {response.headers.get('Location')}: "
                "it is not followed, since the token is for the named address alone."
            ) from error
        except (OSError, TimeoutError, WSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(f"{self._url} cannot be reached: {error}") from error
        if not link.opened:  # the peer went between the handshake and the first turn
            raise Unreachable(f"{self._url} closed the connection at once.")
        return link


class _WebSocketLink(WSListener):
    """One connection; gathers fragments and turns close frames into codes."""

    def __init__(self, receiver: Receiver, *, binary: bool) -> None:
        super().__init__()
        self._receiver = receiver
        self._type = WSMsgType.BINARY if binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self.opened = False
        self._fragments = bytearray()
        self._code, self._reason = ABNORMAL, ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.opened = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._close_frame(transport, frame.get_payload_as_bytes())
        elif kind in _DATA:
            if frame.fin and not self._fragments:
                self._receiver.frame_arrived(frame.get_payload_as_bytes())
                return
            self._fragments += frame.get_payload_as_bytes()
            if len(self._fragments) > _FRAME_BYTES_MAX:
                transport.disconnect(graceful=False)
            elif frame.fin:
                whole = bytes(self._fragments)
                self._fragments.clear()
                self._receiver.frame_arrived(whole)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self._receiver.link_closed(self._code, self._reason)

    def _close_frame(self, transport: WSTransport, payload: bytes) -> None:
        if len(payload) >= 2:
            self._code = int.from_bytes(payload[:2], "big")
            self._reason = payload[2:].decode(errors="replace")
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.send(self._type, frame)

    def close(self, code: int) -> None:
        """Sends the close frame and closes; the server reads what was sent before it."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()
