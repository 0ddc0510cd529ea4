"""What the reader keeps: runs that are asked for, of conversations whose key still exists."""

from __future__ import annotations

import msgspec
import pytest

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.errors import ConversationShredded
from trunkline.model import NO_SEQ, Conversation, Seq
from trunkline.services.metrics import Metrics
from trunkline.services.reader import EncodedRun, Reader
from trunkline.testing.conformance import Writer
from trunkline.testing.conformance.writer import fill_group, view
from trunkline.wire.encoding import JSON


class Reading:
    """A reader over a group of nine entries."""

    def __init__(self) -> None:
        self.sealer = KeyringSealer(Keyring("test", 1, {1: bytes(32)}))
        self.hot = MemoryHotStore(SystemClock())
        self.reader = Reader(
            self.hot, MemoryCachedTier(SystemClock()), MemoryColdStore(), self.sealer, Metrics(),
            run_bytes=1 << 20, page_cache_bytes=1 << 20,
        )  # fmt: skip

    async def fill(self) -> Conversation:
        await fill_group(Writer(self.sealer), self.hot)
        row, _ = await view(self.hot, "ann", "g")
        return row

    async def read(self, row: Conversation) -> EncodedRun:
        return await self.reader.encoded(row, NO_SEQ, Seq(9), JSON)


async def test_a_run_that_is_kept_is_not_given_out_once_its_key_is_destroyed() -> None:
    reading = Reading()
    row = await reading.fill()
    assert (await reading.read(row)).up_to_inclusive == 9
    with pytest.raises(ConversationShredded):
        await reading.read(msgspec.structs.replace(row, wrapped_key=b""))


async def test_a_run_that_nobody_asks_for_is_forgotten() -> None:
    """After two rounds; one that is asked for in each stays."""
    reading = Reading()
    row = await reading.fill()
    first = await reading.read(row)
    for _ in range(3):
        reading.reader.forget_idle()
        assert await reading.read(row) is first
    for _ in range(2):
        reading.reader.forget_idle()
    assert await reading.read(row) is not first
