"""A client that knows the protocol by its documentation only, and a server for it to talk to."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from trunkline.adapters.jwt import JwtAuthenticator, TokenKey, TokenKeys, mint
from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.adapters.memory.identity import MemoryIdentity
from trunkline.gateway.settings import GatewaySettings
from trunkline.gateway.websocket import Gateway
from trunkline.model import UserId
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.settings import ServiceSettings

PATIENCE_SECONDS = 10.0
Frame = dict[str, Any]


class ForeignClient:
    """One WebSocket by the `websockets` library; frames are plain dictionaries."""

    def __init__(self, socket: ClientConnection, *, binary: bool) -> None:
        self.socket = socket
        self.binary = binary

    async def send(self, type_: str, **fields: Any) -> None:
        await self.send_raw(self.encode({"t": type_, **fields}))

    async def send_raw(self, message: Any) -> None:
        await self.socket.send(message)

    def encode(self, frame: Frame) -> str | bytes:
        return msgspec.msgpack.encode(frame) if self.binary else json.dumps(frame)

    async def receive(self) -> Frame:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return self.decode(await self.socket.recv())

    def decode(self, message: str | bytes) -> Frame:
        return msgspec.msgpack.decode(message) if self.binary else json.loads(message)

    async def until(self, type_: str) -> Frame:
        """The next frame of a type; what comes before it is dropped."""
        while (frame := await self.receive())["t"] != type_:
            pass
        return frame

    async def ask(self, type_: str, **fields: Any) -> Frame:
        """Sends a frame and returns its answer, by `id` or `request`; pushes are dropped."""
        await self.send(type_, **fields)
        while True:
            frame = await self.receive()
            if frame["t"] == "acked":
                for ack in frame["acks"]:
                    if ack["id"] == fields.get("id"):
                        return ack
            elif frame["t"] == "error" or "request" in frame:
                return frame

    async def end(self) -> tuple[list[Frame], int]:
        """What still comes, and the code that the server closed with."""
        frames: list[Frame] = []
        try:
            while True:
                frames.append(await self.receive())
        except websockets.ConnectionClosed as closed:
            return frames, closed.rcvd.code if closed.rcvd is not None else 1006


class Server:
    """A listener on a free port of the loopback interface."""

    def __init__(
        self,
        folder: Path,
        *,
        gateway: dict[str, float],
        keys: Sequence[TokenKey] = (),
        services: dict[str, float],
    ) -> None:
        clock = SystemClock()
        self.keys = TokenKeys.create(folder / "tokens.json", secrets.token_bytes(32))
        self.keys.keys.extend(keys)
        self.settings = ServiceSettings(**services)  # type: ignore[arg-type]
        self.clock = clock
        self.identity = MemoryIdentity(secrets.token_bytes)
        hot = MemoryHotStore(clock)
        self.backbone = Backbone(
            Stores(
                hot, hot.tasks, MemoryColdStore(), MemoryCachedTier(clock),
                open_keyring(folder / "keyring.json", create=True),
                JwtAuthenticator(self.keys, clock), clock, secrets.randbits,
                identity=self.identity,
            ),
            self.settings,
        )  # fmt: skip
        settings = GatewaySettings(port=0, **gateway)  # type: ignore[arg-type]
        self.gateway = Gateway(self.backbone, settings, clock)
        self.port = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._clients = AsyncExitStack()

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self.backbone.run()), asyncio.create_task(self.gateway.run()),
        ]  # fmt: skip
        self.port = await self.gateway.listen()

    async def drain(self) -> None:
        """What a server does when it is told to stop."""
        self.gateway.stop_accepting()
        self.backbone.drain()
        await self._tasks[0]

    async def stop(self) -> None:
        await self._clients.aclose()
        await self.drain()
        await self.gateway.closed_by_peers(1.0)
        self.gateway.close()
        await asyncio.gather(*self._tasks)

    async def without(self, user: str) -> None:
        """Waits until the server holds no connection of a user."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while user in {connection.user for connection in self.backbone.registry.all()}:
                await asyncio.sleep(0.01)

    def token(self, user: str, *, ttl_seconds: float = 600.0) -> str:
        return mint(self.keys, UserId(user), now_ms=self.clock.now_ms(), ttl_seconds=ttl_seconds)

    async def dial(
        self, *, subprotocol: str | None = "trunkline.json", path: str = "/v1", **options: Any
    ) -> ForeignClient:
        """A WebSocket on which nothing was said yet; closed with the server."""
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        socket = await self._clients.enter_async_context(
            connect(
                f"ws://127.0.0.1:{self.port}{path}",
                subprotocols=offered,
                close_timeout=1,
                max_size=None,
                proxy=None,
                **options,
            )
        )
        return ForeignClient(socket, binary=subprotocol == "trunkline.msgpack")

    async def connect(
        self, user: str, *, endpoint: str = "e1", token: str | None = None,
        subprotocol: str = "trunkline.json", **options: Any,
    ) -> ForeignClient:  # fmt: skip
        """A user's connection after its `welcome`."""
        client = await self.dial(subprotocol=subprotocol, **options)
        await client.send("hello", token=token or self.token(user), endpoint=endpoint)
        assert (await client.receive())["t"] == "welcome"
        return client


class Undisturbed:
    """Two others who talk while something goes wrong; at the end they must not have noticed."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __aenter__(self) -> Undisturbed:
        self._one = await self._server.connect("one of two")
        self._other = await self._server.connect("the other of two")
        await self._talk("before")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is None:
            await self._talk("after")

    async def _talk(self, body: str) -> None:
        await self._one.ask("send", id=body, to="the other of two", body=body)
        while (await self._other.until("push"))["entries"][-1]["body"] != body:
            pass
