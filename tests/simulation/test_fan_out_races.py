"""What happens between a commit and its fan-out, and after a commit whose outcome was unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.client.link import Link
from trunkline.core.appending import ConversationWrite
from trunkline.model import (
    ClientMessageId,
    ConversationId,
    ConversationKey,
    EndpointId,
    Seq,
    UserId,
    WorkerId,
)
from trunkline.ports.cached import CachedTier
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.testing.network import FrameObserver, Network
from trunkline.testing.server import TINY_CACHE, SimulatedServer
from trunkline.wire.encoding import MESSAGEPACK, Encoding
from trunkline.wire.frames import (
    Acked,
    Add,
    ClientFrame,
    Create,
    Done,
    Error,
    Hello,
    Mark,
    Notice,
    Push,
    Remove,
    Send,
    ServerFrame,
    Welcome,
)

GROUP = ConversationId("group")
ANN, BEN = UserId("ann"), UserId("ben")
SETTLED_SECONDS = 5.0


class Unseen:
    def sent(self, data: bytes) -> None:
        """Nobody looks."""

    def written(self, data: bytes) -> None:
        """Nobody looks."""


def unseen(endpoint: str, encoding: Encoding) -> FrameObserver:
    return Unseen()


class Peer:
    """A connection that keeps all that it was sent."""

    def __init__(self) -> None:
        self.frames: list[ServerFrame] = []
        self._link: Link

    def frame_arrived(self, frame: bytes) -> None:
        self.frames.append(MESSAGEPACK.decode_server(frame))

    def link_closed(self, code: int, reason: str) -> None:
        """It stays closed."""

    async def connect(self, network: Network, user: UserId, endpoint: str = "device") -> None:
        self._link = await network.dialer(user).dial(self, MESSAGEPACK)
        self.send(Hello(user, EndpointId(endpoint)))
        await self.until(lambda: self.of(Welcome))

    def send(self, *frames: ClientFrame) -> None:
        for frame in frames:
            self._link.send(MESSAGEPACK.encode(frame))

    def of(self, kind: type[ServerFrame]) -> list[ServerFrame]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def pushed(self) -> list[int]:
        return [e.seq for f in self.frames if isinstance(f, Push) for e in f.entries]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60.0):
            while not condition():
                await asyncio.sleep(0.01)


class HeldCachedTier(MemoryCachedTier):
    """Holds up what was committed until it is let go."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(clock, TINY_CACHE)
        self.open = asyncio.Event()
        self.open.set()

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        await self.open.wait()
        return await super().append(writes, stamp)


class HeldServer(SimulatedServer):
    cached: HeldCachedTier

    def make_cached(self) -> CachedTier:
        self.cached = HeldCachedTier(self._clock)
        return self.cached


Story = Callable[[HeldServer, Network, Peer, Peer], Awaitable[None]]


def tell(story: Story) -> None:
    """Runs a story on a server with a group of Ann's alone, to which Ann is connected."""
    loop = SimulatedLoop(1)

    async def main() -> None:
        network = Network(loop, 1, unseen)
        ann, ben = Peer(), Peer()
        async with asyncio.TaskGroup() as group:
            server = HeldServer(1, network, SimulatedClock(loop), group)
            server.boot()
            await ann.connect(network, ANN)
            ann.send(Create(ClientMessageId("create"), GROUP))
            await ann.until(lambda: ann.of(Acked))
            try:
                await story(server, network, ann, ben)
            finally:
                await server.stop()

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def say(number: int) -> Send:
    return Send(ClientMessageId(f"say {number}"), f"text {number}", GROUP)


async def is_member(server: HeldServer, user: UserId, *, present: bool) -> None:
    """Waits until the store has it so."""
    async with asyncio.timeout(60.0):
        while True:
            found = (await server.hot.views(user, (GROUP,))).get(GROUP)
            if found is not None and (not found[1].left_at) is present:
                return
            await asyncio.sleep(0.01)


def test_who_connects_between_joining_and_its_fan_out_is_not_pushed_what_was_before() -> None:
    """I13."""

    async def story(server: HeldServer, network: Network, ann: Peer, ben: Peer) -> None:
        server.cached.open.clear()
        ann.send(say(1))
        await asyncio.sleep(1.0)  # it is committed and held up: what follows is one batch
        ann.send(say(2), Add(ClientMessageId("add"), GROUP, [BEN]), say(3))
        await asyncio.sleep(1.0)
        server.cached.open.set()
        await asyncio.sleep(0)
        server.cached.open.clear()
        await is_member(server, BEN, present=True)
        await ben.connect(network, BEN)
        server.cached.open.set()
        await ben.until(lambda: 5 in ben.pushed())
        assert ben.pushed() == [5]
        assert ben.of(Notice)

    tell(story)


def test_who_was_removed_by_an_unknown_outcome_is_pushed_nothing_more() -> None:
    """I13."""

    async def story(server: HeldServer, network: Network, ann: Peer, ben: Peer) -> None:
        await ben.connect(network, BEN)
        ann.send(Add(ClientMessageId("add"), GROUP, [BEN]), say(1))
        await ben.until(lambda: 3 in ben.pushed())
        server.disk.sync_fails = 1.0
        ann.send(Remove(ClientMessageId("remove"), GROUP, [BEN]))
        await ann.until(lambda: ann.of(Error))
        server.disk.sync_fails = 0.0
        ann.send(say(2))
        await ann.until(lambda: len(ann.of(Acked)) > 2)
        await asyncio.sleep(SETTLED_SECONDS)
        assert max(ben.pushed()) <= 4
        assert len(ben.of(Notice)) > 1

    tell(story)


def test_what_an_unknown_outcome_stored_is_told_even_if_nothing_more_is_sent() -> None:
    async def story(server: HeldServer, network: Network, ann: Peer, ben: Peer) -> None:
        await ben.connect(network, BEN)
        server.disk.sync_fails = 1.0
        ann.send(Add(ClientMessageId("add"), GROUP, [BEN]))
        await ann.until(lambda: ann.of(Error))
        server.disk.sync_fails = 0.0
        await ben.until(lambda: ben.of(Notice))

    tell(story)


def test_a_mark_whose_outcome_was_unknown_is_told_to_other_endpoints_once_it_is_known() -> None:
    """I9: what one endpoint marked, the others learn of."""

    async def story(server: HeldServer, network: Network, ann: Peer, ben: Peer) -> None:
        other = Peer()
        await other.connect(network, ANN, "another device")
        server.disk.sync_fails = 1.0
        ann.send(Mark(GROUP, Seq(1), request=1))
        await ann.until(lambda: ann.of(Error))
        server.disk.sync_fails = 0.0
        await ben.connect(network, BEN)
        ben.send(Create(ClientMessageId("create"), ConversationId("another group")))
        await ben.until(lambda: ben.of(Acked))  # the store knows now that it was stored
        assert not other.of(Notice)
        ann.send(Mark(GROUP, Seq(1), request=2))
        await ann.until(lambda: ann.of(Done))
        await other.until(lambda: other.of(Notice))

    tell(story)
