"""Two workers of one process over shared memory stores and a hub, and connections to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from torn_hot import TWO, TornHot

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.bus import MemoryHub
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.generations import MemoryGenerations
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.lanes import ONE_LANE
from trunkline.model import ClientMessageId, ConversationId, EndpointId, UserId, WorkerId
from trunkline.ports.authenticator import Grant
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.crossing import Cluster
from trunkline.services.session import ClientSession
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.wire.close import Close
from trunkline.wire.encoding import MESSAGEPACK, Encoding
from trunkline.wire.frames import (
    Acked,
    Add,
    ClientFrame,
    Create,
    Hello,
    Notice,
    Push,
    Remove,
    Send,
    ServerFrame,
    Welcome,
)

ANN, BEN, CID = UserId("ann"), UserId("ben"), UserId("cid")
GROUP = ConversationId("group")
A, B = WorkerId("worker a"), WorkerId("worker b")
SWEEP_SECONDS = 3_600.0
LONG_SECONDS = 30.0


class TokenIsUser:
    def authenticate(self, token: str) -> Grant:
        return Grant(UserId(token), 2**50)


class Peer:
    """A connection, by the frames that it was sent: as they are, and decoded."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self.data: list[bytes] = []
        self.frames: list[ServerFrame] = []
        self.session: ClientSession
        self._sent = 0

    @property
    def encoding(self) -> Encoding:
        return self._encoding

    def write(self, frame: bytes) -> None:
        self.data.append(frame)
        self.frames.append(self._encoding.decode_server(frame))

    def close(self, close: Close, reason: str) -> None:
        """The test looks at what came before."""

    def page_bytes(self, most: int) -> int:
        """All of it: every link is fast."""
        return most

    async def drained(self) -> None:
        """A socket that takes everything."""

    def send(self, *frames: ClientFrame) -> None:
        for frame in frames:
            self.session.receive(self._encoding.encode(frame))

    async def act(self, frame: ClientFrame) -> None:
        acked = len(self.of(Acked))
        self.send(frame)
        await until(lambda: len(self.of(Acked)) > acked)

    async def say(self, body: str) -> None:
        self._sent += 1
        await self.act(Send(ClientMessageId(f"{id(self)} {self._sent}"), body, GROUP))

    async def create(self, *users: UserId) -> None:
        await self.act(Create(ClientMessageId("create"), GROUP, list(users)))

    async def add(self, user: UserId) -> None:
        self._sent += 1
        await self.act(Add(ClientMessageId(f"add {self._sent}"), GROUP, [user]))

    async def remove(self, user: UserId) -> None:
        self._sent += 1
        await self.act(Remove(ClientMessageId(f"remove {self._sent}"), GROUP, [user]))

    def of(self, kind: type[ServerFrame]) -> list[ServerFrame]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def pushed(self) -> list[int]:
        return [e.seq for f in self.frames if isinstance(f, Push) for e in f.entries]

    def notices(self) -> int:
        return len(self.of(Notice))


class Pair:
    """Workers A and B."""

    def __init__(
        self,
        loop: SimulatedLoop,
        group: asyncio.TaskGroup,
        sweep_seconds: float,
        *,
        torn: bool = False,
    ) -> None:
        """`torn`: what is hot stands in the two databases of `torn_hot`."""
        self._sweep_seconds = sweep_seconds
        self._lanes = TWO if torn else ONE_LANE
        self.clock = SimulatedClock(loop)
        self.hub = MemoryHub()
        self.hot = MemoryHotStore(self.clock)
        self.torn = TornHot(self.hot)
        self._served: Any = self.torn if torn else self.hot
        self.cached = MemoryCachedTier(self.clock)
        self.sealer = KeyringSealer(Keyring("test", 1, {1: bytes(32)}))
        self.generations = MemoryGenerations()
        self._cold = MemoryColdStore()
        self._group = group
        self.backbones: dict[WorkerId, Backbone] = {}
        for worker in (A, B):
            self.start(worker)

    def start(self, worker: WorkerId) -> None:
        bus = self.hub.open(worker)
        stores = Stores(
            self._served, self.hot.tasks, self._cold, self.hub.tier(worker, self.cached),
            self.sealer,
            TokenIsUser(), self.clock, random.Random(worker).getrandbits,
            cluster=Cluster(
                worker, bus, self._served, self.hub.heads(worker), self.generations
            ),
            lanes=self._lanes,
        )  # fmt: skip
        backbone = Backbone(stores, ServiceSettings(sweep_seconds=self._sweep_seconds))
        self.backbones[worker] = backbone
        self._group.create_task(backbone.run())

    async def connect(
        self, worker: WorkerId, user: UserId, encoding: Encoding = MESSAGEPACK
    ) -> Peer:
        peer = Peer(encoding)
        peer.session = ClientSession(
            self.backbones[worker], peer, f"{user}", self._group.create_task
        )
        peer.send(Hello(user, EndpointId(f"device of {user}")))
        await until(lambda: peer.of(Welcome))
        await asyncio.sleep(1.0)  # what was under way when it came is over then
        peer.frames.clear()
        peer.data.clear()
        return peer

    def count(self, worker: WorkerId, name: str, **labels: str) -> float:
        value = self.backbones[worker].metrics.registry.get_sample_value(name, labels)
        return value or 0.0

    def stop(self) -> None:
        for backbone in self.backbones.values():
            backbone.drain()


async def until(condition: Callable[[], object], seconds: float = LONG_SECONDS) -> None:
    """Waits for a state, in virtual time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def two_workers(
    loop: SimulatedLoop, sweep_seconds: float, *, torn: bool
) -> AsyncIterator[Pair]:
    async with asyncio.TaskGroup() as group:
        pair = Pair(loop, group, sweep_seconds, torn=torn)
        try:
            yield pair
        finally:
            pair.stop()


def tell(
    story: Callable[[Pair], Coroutine[Any, Any, None]],
    sweep_seconds: float = SWEEP_SECONDS,
    *,
    torn: bool = False,
) -> None:
    """Runs a story with two workers, in virtual time."""
    loop = SimulatedLoop(1)

    async def main() -> None:
        async with two_workers(loop, sweep_seconds, torn=torn) as pair:
            await story(pair)

    try:
        loop.run_until_complete(main())
        assert not loop.faults
    finally:
        loop.close()
