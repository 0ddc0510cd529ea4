"""One worker alone over memory stores, and an endpoint that syncs as docs/protocol.md says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from two_workers import Peer, TokenIsUser, until

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.digest import to_hex
from trunkline.core.ranges import Vector, pack_sums
from trunkline.model import ClientMessageId, ConversationId, EndpointId, Seq, UserId
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.session import ClientSession
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.wire.encoding import JSON, Encoding
from trunkline.wire.frames import (
    Changed,
    Confirm,
    Create,
    Done,
    Error,
    HeldPart,
    Hello,
    Send,
    Sync,
    Synced,
    Welcome,
)

Held = dict[ConversationId, Seq]


class Device(Peer):
    """An endpoint's connection.

    Attributes:
        trips: syncs that were asked, `exchanged`: bytes of both ways, rows not counted.
    """

    def __init__(self, encoding: Encoding = JSON) -> None:
        super().__init__(encoding)
        self._numbers = count(1)
        self.trips = 0
        self.exchanged = 0

    async def ask(self, frame: Sync) -> Synced | Error:
        """One answer."""
        self.trips += 1
        before = len(self.frames)
        self.send(frame)
        await until(lambda: len(self.frames) > before)
        answer = self.frames[-1]
        assert isinstance(answer, Synced | Error)
        rows = self.encoding.encode(getattr(answer, "conversations", []))
        self.exchanged += len(self.encoding.encode(frame)) + len(self.data[-1]) - len(rows)
        return answer

    async def page(self, held: Held, following: str = "", cursor: int = 2**40) -> Synced:
        """One page, with what of the vector the server asks for."""
        vector = Vector()
        for conversation, seq in held.items():
            vector.move(conversation, seq)
        proof: dict[str, Any] = {}
        while True:
            digest = to_hex(vector.digest)
            answer = await self.ask(
                Sync(next(self._numbers), cursor, digest, next=following, **proof)
            )
            assert isinstance(answer, Synced), answer
            if not answer.vector_wanted:
                return answer
            assert not answer.conversations
            list(vector.divide())
            if answer.ranges_wanted:
                proof = {"range_sums": pack_sums(vector.sums())}
            elif answer.parts_wanted:
                parts = [vector.unlike(one.range, one.sums) for one in answer.parts_wanted]
                proof = {"parts": [HeldPart(*p) for of_range in parts for p in of_range.items()]}
            else:
                proof = {"vector": held}

    async def sync(self, held: Held, cursor: int = 2**40) -> dict[ConversationId, Changed]:
        """All pages; the cursor is beyond all changes of the list, unless another is given."""
        page = await self.page(held, cursor=cursor)
        rows = list(page.conversations)
        while page.next:
            page = await self.page(held, page.next, cursor)
            rows += page.conversations
        return {row.conversation: row for row in rows}

    async def confirm(self, held: Held) -> None:
        """Raises read offsets."""
        before = len(self.of(Done))
        self.send(Confirm(held, next(self._numbers)))
        await until(lambda: len(self.of(Done)) > before)


class Worker:
    """A backbone as the embedded server has it."""

    def __init__(
        self, loop: SimulatedLoop, group: asyncio.TaskGroup, settings: ServiceSettings
    ) -> None:
        self.clock = SimulatedClock(loop)
        self.hot = MemoryHotStore(self.clock)
        self._cold = MemoryColdStore()
        self._sealer = KeyringSealer(Keyring("test", 1, {1: bytes(32)}))
        self._settings = settings
        self._group = group
        self._ids = count()
        self.restart()

    def restart(self) -> None:
        """Another process over the same store: what was in memory is gone."""
        if hasattr(self, "backbone"):
            self.backbone.drain()
        self.cached = MemoryCachedTier(self.clock)
        self.backbone = Backbone(
            Stores(
                self.hot, self.hot.tasks, self._cold, self.cached, self._sealer,
                TokenIsUser(), self.clock, random.Random(next(self._ids)).getrandbits,
                head_changes=self.hot.head_changes,
            ),
            self._settings,
            archives=False,
        )  # fmt: skip
        self._group.create_task(self.backbone.run())

    async def connect(self, user: str, *, endpoint: str = "device", push: bool = False) -> Device:
        """A connection of one of the user's endpoints."""
        device = Device()
        device.session = ClientSession(self.backbone, device, user, self._group.create_task)
        device.send(Hello(user, EndpointId(endpoint), push=push))
        await until(lambda: device.of(Welcome))
        return device

    async def groups(self, number: int, *users: str) -> list[ConversationId]:
        """Groups of ann and others, with one entry each."""
        ann, before = await self.connect("ann"), next(self._ids)
        ids = [ConversationId(f"group {before} {one}") for one in range(number)]
        for id_ in ids:
            await ann.act(Create(ClientMessageId("create"), id_, [UserId(u) for u in users]))
        ann.session.closed()
        return ids

    async def say(self, *ids: ConversationId) -> None:
        """One more entry in each."""
        ann = await self.connect("ann")
        for id_ in ids:
            await ann.act(Send(ClientMessageId(f"say {next(self._ids)}"), "x", id_))
        ann.session.closed()


def alone(story: Callable[[Worker], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Runs a story with one worker, in virtual time."""
    loop = SimulatedLoop(1)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            worker = Worker(loop, group, ServiceSettings(send_burst=100_000, **settings))
            try:
                await story(worker)
            finally:
                worker.backbone.drain()

    try:
        loop.run_until_complete(main())
        assert not loop.faults
    finally:
        loop.close()
