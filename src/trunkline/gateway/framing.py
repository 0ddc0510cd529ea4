"""WebSocket frames of the server's direction, built by hand (RFC 6455 section 5.2).

A server's frames are not masked, so one built frame serves every socket.
"""

from typing import Final

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
_CONTROL_BYTES: Final = 125

PING: Final = bytes((_PING, 0))


class Framer:
    """Builds whole frames; the same payload object given again is built once."""

    def __init__(self, *, binary: bool) -> None:
        self._first = _BINARY if binary else _TEXT
        self._payload: bytes = b""
        self._frame: bytes = b""

    def frame(self, payload: bytes) -> bytes:
        """Header and payload. A push to many members costs one copy."""
        if payload is self._payload:
            return self._frame
        size = len(payload)
        if size < 126:
            header = bytes((self._first, size))
        elif size < 65_536:
            header = bytes((self._first, 126)) + size.to_bytes(2, "big")
        else:
            header = bytes((self._first, 127)) + size.to_bytes(8, "big")
        self._payload = payload
        self._frame = frame = header + payload
        return frame


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return bytes((_PONG, len(payload))) + payload


def close(code: int, reason: str) -> bytes:
    """The last frame; `reason` is ASCII, and cut where it is too long."""
    payload = (code.to_bytes(2, "big") + reason.encode("ascii", "replace"))[:_CONTROL_BYTES]
    return bytes((_CLOSE, len(payload))) + payload
