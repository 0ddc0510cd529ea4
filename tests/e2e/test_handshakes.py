"""The handshakes of the clients that there are, and what is none."""

from __future__ import annotations

import pytest
from foreign_client import Server
from raw_socket import RawSocket

VERSION = "Sec-WebSocket-Version: 13"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
PROTOCOL = "Sec-WebSocket-Protocol: trunkline.json"
EXTENSIONS = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

# As these clients write it, in their order and spelling.
CLIENTS = {
    "Firefox": (
        "Host: 127.0.0.1:8480", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)",
        "Accept: */*", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate, br",
        VERSION, "Origin: http://127.0.0.1:8000", PROTOCOL,
        "Sec-WebSocket-Extensions: permessage-deflate", KEY, "Connection: keep-alive, Upgrade",
        "Sec-Fetch-Dest: empty", "Sec-Fetch-Mode: websocket", "Sec-Fetch-Site: same-site",
        "Pragma: no-cache", "Cache-Control: no-cache", "Upgrade: websocket",
    ),
    "Chromium": (
        "Host: 127.0.0.1:8480", "Connection: Upgrade", "Pragma: no-cache",
        "Cache-Control: no-cache", "User-Agent: Mozilla/5.0 Chrome/140.0", "Upgrade: websocket",
        "Origin: http://127.0.0.1:8000", VERSION, "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-US,en;q=0.9", KEY, EXTENSIONS, PROTOCOL,
    ),
    "Safari": (
        "Upgrade: websocket", "Connection: Upgrade", "Host: 127.0.0.1:8480",
        "Origin: http://127.0.0.1:8000", "Pragma: no-cache", "Cache-Control: no-cache", KEY,
        VERSION, "Sec-WebSocket-Extensions: permessage-deflate", PROTOCOL,
    ),
    "Node, ws": (
        VERSION, KEY, "Connection: Upgrade", "Upgrade: websocket", EXTENSIONS, PROTOCOL,
        "Host: 127.0.0.1:8480",
    ),
    "Node, undici": (
        "host: 127.0.0.1:8480", "connection: upgrade", "upgrade: websocket",
        KEY.replace("Sec-WebSocket-Key", "sec-websocket-key"), "sec-websocket-version: 13",
        "sec-websocket-protocol: trunkline.json", "sec-websocket-extensions: permessage-deflate",
        "accept: */*", "accept-language: *", "sec-fetch-mode: websocket", "user-agent: undici",
    ),
    "Go, gorilla": (
        "Host: 127.0.0.1:8480", "User-Agent: Go-http-client/1.1", "Connection: Upgrade", KEY,
        PROTOCOL, VERSION, "Upgrade: websocket",
    ),
    "Go, coder": (
        "Host: 127.0.0.1:8480", "User-Agent: Go-http-client/1.1", "Connection: Upgrade",
        "Sec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-Websocket-Protocol: trunkline.json",
        "Sec-Websocket-Version: 13", "Upgrade: websocket",
    ),
    "OkHttp": (
        "Upgrade: websocket", "Connection: Upgrade", KEY, VERSION,
        "Sec-WebSocket-Extensions: permessage-deflate", PROTOCOL, "Host: 127.0.0.1:8480",
        "Accept-Encoding: gzip", "User-Agent: okhttp/4.12.0",
    ),
    "Dart": (
        "user-agent: Dart/3.5 (dart:io)", "connection: Upgrade", "cache-control: no-cache",
        "accept-encoding: gzip", "content-length: 0", "sec-websocket-version: 13",
        "host: 127.0.0.1:8480", "sec-websocket-extensions: permessage-deflate",
        KEY.lower().replace("dghlihnhbxbszsbub25jzq", "dGhlIHNhbXBsZSBub25jZQ"),
        "upgrade: websocket", "sec-websocket-protocol: trunkline.json",
    ),
    "nginx as a proxy": (
        "Upgrade: websocket", "Connection: upgrade", "Host: chat.example",
        "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", VERSION, KEY, PROTOCOL,
    ),
    "a proxy that adds its own": (
        "Host: chat.example", "Via: 1.1 proxy", "Upgrade: WebSocket", "Connection: close, UPGRADE",
        VERSION, KEY, PROTOCOL,
    ),
    "headers in several lines": (
        "Host: chat.example", "Upgrade: websocket", "Connection: keep-alive",
        "Connection: Upgrade", VERSION, KEY, "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Protocol: trunkline.json",
    ),
}  # fmt: skip


def request(*lines: str, target: str = "/v1", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join((f"GET {target} {version}", *lines, "", "")).encode()


@pytest.mark.parametrize("lines", CLIENTS.values(), ids=CLIENTS.keys())
async def test_every_client_connects(server: Server, lines: tuple[str, ...]) -> None:
    client = await RawSocket.open(server.port, request(*lines))
    assert await client.status() == 101
    client.close()


PLAIN = ("Host: x", "Upgrade: websocket", "Connection: Upgrade", VERSION, KEY, PROTOCOL)


def without(*names: str) -> tuple[str, ...]:
    return tuple(line for line in PLAIN if not line.lower().startswith(names))


REFUSED = {
    "no upgrade": (request(*without("upgrade")), 400),
    "another upgrade": (request(*without("upgrade"), "Upgrade: h2c"), 400),
    "a connection that is kept alive": (
        request(*without("connection"), "Connection: keep-alive"), 400,
    ),
    "a token that only begins so": (
        request(*without("connection"), "Connection: Upgrades"), 400,
    ),
    "no key": (request(*without("sec-websocket-key")), 400),
    "a short key": (request(*without("sec-websocket-key"), "Sec-WebSocket-Key: AAAA"), 400),
    "no base64": (request(*without("sec-websocket-key"), "Sec-WebSocket-Key: ~~~~~~~~~~"), 400),
    "an old version": (
        request(*without("sec-websocket-version"), "Sec-WebSocket-Version: 8"), 426,
    ),
    "a body": (request(*PLAIN, "Content-Length: 5"), 400),
    "a body in chunks": (request(*PLAIN, "Transfer-Encoding: chunked"), 400),
    "a folded header": (request(*PLAIN, " folded"), 400),
    "a header without a name": (request(*PLAIN, ": value"), 400),
    "another method": (request(*PLAIN).replace(b"GET", b"POST"), 400),
    "an old HTTP": (request(*PLAIN, version="HTTP/1.0"), 400),
    "another path": (request(*PLAIN, target="/v2"), 404),
    "a head without an end": (request(*PLAIN)[:-2] + b"x" * 20_000, 431),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_no_handshake_is_answered_in_http(
    server: Server, sent: bytes, status: int
) -> None:
    client = await RawSocket.open(server.port, sent)
    assert await client.status() == status
    await client.gone()
    client.close()


async def test_a_handshake_that_comes_byte_by_byte_is_answered(server: Server) -> None:
    sent = request(*PLAIN, target="/v1?x=1")
    client = await RawSocket.open(server.port, sent[:1])
    for at in range(1, len(sent)):
        client.writer.write(sent[at : at + 1])
        await client.writer.drain()
    assert await client.status() == 101
    client.close()
