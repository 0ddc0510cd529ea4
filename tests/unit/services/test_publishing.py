"""What waits for other workers is bounded in bytes, and what is dropped is made up for."""

from __future__ import annotations

import asyncio

import pytest
from two_workers import A, B

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.bus import MemoryBus, MemoryHub
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.core.packets import (
    Note,
    Packet,
    Told,
    decode_envelope,
    decode_packet,
    packet_associated_data,
)
from trunkline.model import ConversationId, ConversationKey, Seq, UserId
from trunkline.services.metrics import Metrics
from trunkline.services.publishing import Publisher
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop

GROUP = ConversationId("group")
MOST_BYTES = 8 << 20
MANY = 1_000
CROWD = tuple(UserId(f"{number:0100}") for number in range(MANY))


class Publishing:
    """A publisher on a hub, and what arrives at another worker."""

    def __init__(self, loop: SimulatedLoop) -> None:
        clock, self.hub = SimulatedClock(loop), MemoryHub()
        self.sealer = KeyringSealer(Keyring("test", 1, {1: b"1" * 32}))
        self.other: MemoryBus = self.hub.open(B)
        self.publisher = Publisher(
            self.hub.open(A), MemoryCachedTier(clock), self.sealer.packet_cipher(A), A, clock,
            Metrics(),
        )  # fmt: skip
        self.everybody_is_told = 0
        self.publisher.lost_notes = self._tell

    def _tell(self) -> None:
        self.everybody_is_told += 1
        self.publisher.tell_everything([B])

    async def next(self) -> tuple[int, Packet]:
        """The size and the content of the next packet that holds anything."""
        async with asyncio.timeout(60):
            async for data in self.other.received():
                assert isinstance(data, bytes)
                envelope = decode_envelope(data)
                place = packet_associated_data(A, B, envelope.number)
                packet = decode_packet(self.sealer.packet_cipher(A).open(envelope.sealed, place))
                if packet != Packet():
                    return len(data), packet
        raise AssertionError


@pytest.fixture
def loop() -> SimulatedLoop:
    return SimulatedLoop(1)


def test_notes_that_cannot_be_published_are_bounded_and_then_everything_is_compared(
    loop: SimulatedLoop,
) -> None:
    async def story() -> None:
        publishing = Publishing(loop)
        publisher = publishing.publisher
        await publishing.other.present(CROWD)
        publishing.hub.is_down = True
        running = asyncio.create_task(publisher.run())
        for number in range(MANY):
            publisher.note(Note(ConversationKey(number), GROUP, CROWD, True))
            assert publisher.queued_bytes <= MOST_BYTES
        await asyncio.sleep(10.0)
        publishing.hub.is_down = False
        size, packet = await publishing.next()
        assert size < 2 * MOST_BYTES
        assert packet.everything
        assert publishing.everybody_is_told == 1
        assert not publisher.queued_bytes
        publisher.close()
        await running

    loop.run_until_complete(story())
    loop.close()


def test_heads_that_wait_for_one_inbox_become_one_request_to_compare_everything(
    loop: SimulatedLoop,
) -> None:
    async def story() -> None:
        publishing = Publishing(loop)
        publisher = publishing.publisher
        for number in range(100_000):
            publisher.tell(Told(ConversationKey(number), GROUP, Seq(1), 1), [B])
        running = asyncio.create_task(publisher.run())
        size, packet = await publishing.next()
        assert size < MOST_BYTES
        assert packet.everything
        publisher.close()
        await running

    loop.run_until_complete(story())
    loop.close()


def test_a_request_to_compare_everything_that_was_not_published_is_made_again(
    loop: SimulatedLoop,
) -> None:
    async def story() -> None:
        publishing = Publishing(loop)
        publisher = publishing.publisher
        publishing.hub.is_down = True
        publisher.tell_everything([B])
        running = asyncio.create_task(publisher.run())
        await asyncio.sleep(1.0)
        publishing.hub.is_down = False
        _, packet = await publishing.next()
        assert packet.everything
        publisher.close()
        await running

    loop.run_until_complete(story())
    loop.close()
