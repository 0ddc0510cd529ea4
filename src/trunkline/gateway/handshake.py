"""The opening handshake of a WebSocket: the head of a request to an answer (RFC 6455 section 4.2).

Names and tokens of headers are compared without case, repeated headers are one list, and what
stands in a list beside the token that is looked for does not matter (RFC 9110 sections 5.3, 7.6.1).
"""

import base64
import binascii
import hashlib
import re
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from trunkline.wire.encoding import BY_SUBPROTOCOL, Encoding

PATH: Final = "/v1"
END_OF_HEAD: Final = b"\r\n\r\n"
_VERSION: Final = "13"
_KEY_BYTES: Final = 16
_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEADER: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_REQUEST: Final = re.compile(r"GET ([!-~]+) HTTP/1\.1")


class Upgrade(NamedTuple):
    """A handshake that is accepted."""

    answer: bytes
    encoding: Encoding


class NoUpgrade(Exception):
    """A request that is not accepted; `answer` says why, in HTTP."""

    def __init__(self, status: HTTPStatus, text: str, *headers: str) -> None:
        super().__init__(text)
        body = text.encode()
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            *headers,
            "Connection: close",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
        )
        self.answer = "\r\n".join(lines).encode() + END_OF_HEAD + body


def upgrade(head: bytes) -> Upgrade:
    """Answers a request's head, without the empty line that ends it; raises `NoUpgrade`."""
    request, *lines = head.decode("latin-1").split("\r\n")
    target = _REQUEST.fullmatch(request)
    if target is None:
        raise _bad("The request is not `GET` over HTTP/1.1.")
    headers = _headers(lines)
    if _path(target[1]) != PATH:
        raise NoUpgrade(HTTPStatus.NOT_FOUND, f"WebSockets are served at {PATH}.")
    _check(headers)
    key = _key(headers.get("sec-websocket-key", ""))
    offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
    encoding = next((BY_SUBPROTOCOL[name] for name in offered if name in BY_SUBPROTOCOL), None)
    if encoding is None:
        raise _bad(f"Offer a subprotocol: {', '.join(BY_SUBPROTOCOL)}.")
    proof = base64.b64encode(hashlib.sha1(key + _KEY_SUFFIX, usedforsecurity=False).digest())
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {proof.decode()}",
        f"Sec-WebSocket-Protocol: {encoding.subprotocol}",
    ]
    return Upgrade("\r\n".join(lines).encode() + END_OF_HEAD, encoding)


def too_long() -> NoUpgrade:
    """Of a head that does not end."""
    return NoUpgrade(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers of the request are too long."
    )


def _bad(text: str) -> NoUpgrade:
    return NoUpgrade(HTTPStatus.BAD_REQUEST, text)


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise _bad("A header of the request is not valid.")
        name, value = header[1].lower(), header[2].rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _path(target: str) -> str:
    """Of a target in origin or, as some proxies write it, in absolute form."""
    return urlsplit(target).path if "://" in target else target.split("?", 1)[0]


def _check(headers: dict[str, str]) -> None:
    if "websocket" not in _tokens(headers, "upgrade"):
        raise _bad("The header `Upgrade` does not name `websocket`.")
    if "upgrade" not in _tokens(headers, "connection"):
        raise _bad("The header `Connection` does not name `Upgrade`.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _bad("The request has a body.")
    if headers.get("sec-websocket-version") != _VERSION:
        raise NoUpgrade(
            HTTPStatus.UPGRADE_REQUIRED,
            f"Only version {_VERSION} of the WebSocket protocol is spoken.",
            f"Sec-WebSocket-Version: {_VERSION}",
        )


def _tokens(headers: dict[str, str], name: str) -> set[str]:
    return {token.strip().lower() for token in headers.get(name, "").split(",")}


def _key(text: str) -> bytes:
    try:
        if len(base64.b64decode(text.encode(), validate=True)) == _KEY_BYTES:
            return text.encode()
    except (binascii.Error, ValueError):
        pass
    raise _bad("The header `Sec-WebSocket-Key` is not 16 bytes in base64.")
