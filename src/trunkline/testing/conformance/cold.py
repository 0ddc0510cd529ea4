"""Suite of the cold store: sealed segments in, the same segments out, in any overlap."""

from collections.abc import Sequence

import msgspec

from trunkline.core import segments
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    Entry,
    Member,
    Segment,
    Seq,
    UserId,
    place_of,
)
from trunkline.ports.cold import ColdStore
from trunkline.testing.conformance.stores import StoreMaker
from trunkline.testing.conformance.writer import Writer

HIGH_KEYS = [2**64 - 1, 2**63, 2**63 - 1, 1]


def _conversation(writer: Writer, key: int = 2**64 - 5) -> Conversation:
    name = ConversationId("José 🦊")
    return Conversation(
        ConversationKey(key), name, ConversationKind.GROUP,
        writer.sealer.new_wrapped_key(place_of(ConversationKey(key), name)),
        Seq(1_000), 990, Digest(2**128 - 1),
    )  # fmt: skip


def _segment(writer: Writer, conversation: Conversation, first: int, last: int) -> Segment:
    entries = [Entry(Seq(seq), UserId("ann"), seq, f"body {seq}") for seq in range(first, last + 1)]
    cipher = writer.sealer.cipher(conversation.wrapped_key, conversation.place)
    return segments.seal(conversation, entries, first - 1, cipher)


async def _ranges(cold: ColdStore, key: int, after: int, up_to: int) -> list[tuple[int, int]]:
    found = await cold.read(ConversationKey(key), Seq(after), Seq(up_to))
    return [(segment.first, segment.last) for segment in found]


def _covered(ranges: Sequence[tuple[int, int]]) -> set[int]:
    return {seq for first, last in ranges for seq in range(first, last + 1)}


class ColdStoreSuite:
    """Promises of `ports.cold.ColdStore`. Fixtures: `make_store`, `writer`."""

    async def test_segments_come_back_as_they_were_put_also_after_a_crash(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I2, I4."""
        conversation = _conversation(writer)
        put = [_segment(writer, conversation, *r) for r in [(1, 256), (257, 300)]]
        metadata = ColdMetadata(
            conversation,
            (
                Member(UserId("ann"), Seq(1)),
                Member(UserId("🦊 "), Seq(7), Digest(2**128 - 2), 6, Seq(9), Digest(3), 8, Seq(9)),
            ),
        )
        async with make_store() as stores:
            await stores.cold.put(put, [metadata])
            await make_store.crash()
        async with make_store() as stores:
            assert list(await stores.cold.read(conversation.key, Seq(0), Seq(300))) == put
            assert await stores.cold.metadata(conversation.key) == metadata
            cipher = writer.sealer.cipher(conversation.wrapped_key, conversation.place)
            entries = [
                e for s in put for e in segments.open_segment(conversation, s, cipher).entries
            ]
            assert [entry.body for entry in entries] == [f"body {seq}" for seq in range(1, 301)]

    async def test_every_range_is_covered_by_what_comes_back(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I8: segments may overlap, reach beyond the range, and lie in any order of writing."""
        conversation = _conversation(writer)
        key = conversation.key
        put = [(21, 30), (1, 4), (5, 10), (1, 10), (11, 20), (9, 13), (15, 15)]
        async with make_store() as stores:
            for bounds in put:
                await stores.cold.put([_segment(writer, conversation, *bounds)], [])
            for after in range(30):
                for up_to in range(after + 1, 31):
                    found = await _ranges(stores.cold, key, after, up_to)
                    assert set(range(after + 1, up_to + 1)) <= _covered(found)
                    assert found == sorted(found, key=lambda bounds: bounds[0])

    async def test_what_was_never_put_is_not_made_up(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """The reader sees the hole; the store neither fills nor hides it."""
        conversation = _conversation(writer)
        key = conversation.key
        async with make_store() as stores:
            assert await _ranges(stores.cold, key, 0, 9) == []
            assert await stores.cold.metadata(key) is None
            await stores.cold.put([_segment(writer, conversation, 5, 8)], [])
            assert await _ranges(stores.cold, key, 0, 4) == []
            assert await _ranges(stores.cold, key, 8, 20) == []
            assert await _ranges(stores.cold, key, 0, 20) == [(5, 8)]
            assert await _ranges(stores.cold, key - 1, 0, 20) == []

    async def test_a_segment_of_the_same_range_replaces_the_one_before(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A put that is repeated after an unknown outcome leaves one segment."""
        conversation = _conversation(writer)
        first, second = (_segment(writer, conversation, 1, 9) for _ in range(2))
        renamed = msgspec.structs.replace(conversation, sealed_name=b"later")
        async with make_store() as stores:
            await stores.cold.put([first], [ColdMetadata(conversation, ())])
            await stores.cold.put([second], [ColdMetadata(renamed, ())])
            found = await stores.cold.read(conversation.key, Seq(0), Seq(9))
            assert [segment.sealed for segment in found] == [second.sealed]
            assert await stores.cold.metadata(conversation.key) == ColdMetadata(renamed, ())

    async def test_keys_come_once_each_in_order(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A key's top bit is no sign."""
        async with make_store() as stores:
            for key in HIGH_KEYS:
                conversation = _conversation(writer, key)
                put = [_segment(writer, conversation, *r) for r in [(1, 2), (3, 4)]]
                await stores.cold.put(put, [])
            found = stores.cold.keys()
            assert [key async for key in found] == sorted(HIGH_KEYS)
