"""A listener over a data directory, in this process: stopped, restored and started at will."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from trunkline.adapters.jwt import JwtAuthenticator, mint
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.app.keys import open_sealer, open_token_keys
from trunkline.client import Client
from trunkline.gateway.settings import GatewaySettings
from trunkline.gateway.websocket import Gateway
from trunkline.model import UserId
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.settings import ServiceSettings


class DirectoryServer:
    """An embedded server, always on the same port.

    Attributes:
        stores: of the running server.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.stores: EmbeddedStores
        self.backbone: Backbone
        self._running = AsyncExitStack()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        clock = SystemClock()
        sealer = open_sealer(self.data)
        settings = Settings(materialiser="thread", lock_wait_seconds=5.0)
        stack = self._running = AsyncExitStack()
        self.stores = opened = await stack.enter_async_context(
            open_embedded(self.data, settings, clock)
        )
        self.keys = open_token_keys(self.data, create=True)
        self.backbone = Backbone(
            Stores(
                opened.hot, opened.tasks, opened.cold, MemoryCachedTier(clock), sealer,
                JwtAuthenticator(self.keys, clock), clock, secrets.randbits,
                identity=opened.identity,
            ),
            ServiceSettings(),
        )  # fmt: skip
        gateway = Gateway(self.backbone, GatewaySettings(port=self.port), clock)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        serving = group.create_task(self.backbone.run())
        beside = group.create_task(gateway.run())
        self.port = await gateway.listen()

        async def end() -> None:
            gateway.stop_accepting()
            self.backbone.drain()
            await serving
            await gateway.closed_by_peers(2.0)
            gateway.close()
            await beside

        stack.push_async_callback(end)

    async def stop(self) -> None:
        await self._running.aclose()

    def back_up(self, to: Path) -> None:
        """A copy of the directory, as `cp -r` makes it."""
        shutil.copytree(self.data, to)

    def restore(self, backup: Path) -> None:
        """The directory is gone, the copy takes its place."""
        shutil.rmtree(self.data)
        shutil.copytree(backup, self.data)

    def token(self, user: str) -> str:
        now_ms = SystemClock().now_ms()
        return mint(self.keys, UserId(user), now_ms=now_ms, ttl_seconds=600.0)

    def client(self, user: str, endpoint: str = "phone", **options: Any) -> Client:
        options = {"report": lambda _: None, **options}
        return Client(
            self.url, token=self.token(user), user=user, endpoint=endpoint,
            reconnect_first_seconds=0.02, reconnect_most_seconds=0.1, **options,
        )  # fmt: skip
