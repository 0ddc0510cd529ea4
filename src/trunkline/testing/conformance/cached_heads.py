"""Suite of the cached heads: what appends left, under the stamp that they left it under."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from trunkline.model import ConversationKey, Seq
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.testing.conformance.cached_eviction import write

HeadsMaker = Callable[[], AbstractAsyncContextManager[tuple[CachedTier, CachedHeads]]]
"""`make_heads()` opens an empty tier and the heads in it."""

KEY, OTHER, UNKNOWN = ConversationKey(1), ConversationKey(2**64 - 1), ConversationKey(3)
STAMP, NEWER = b"0123456789abcdef", b"fedcba9876543210"


class CachedHeadsSuite:
    """Promises of `ports.cached_heads.CachedHeads`. Fixture: `make_heads`."""

    async def test_heads_come_in_the_keys_order_and_none_where_none_is(
        self, make_heads: HeadsMaker
    ) -> None:
        """Whether entries came with them or not."""
        async with make_heads() as (tier, heads):
            assert heads.server
            assert heads.answers
            await tier.append([write(KEY, 1, 3, []), write(OTHER, 8, 7, [])], STAMP)
            assert list(await heads.heads([OTHER, UNKNOWN, KEY], STAMP)) == [7, None, 3]
            assert list(await heads.heads([], STAMP)) == []

    async def test_a_head_counts_under_its_own_stamp_only(self, make_heads: HeadsMaker) -> None:
        """And under none if it came without one."""
        async with make_heads() as (tier, heads):
            await tier.append([write(KEY, 1, 3, [])], STAMP)
            assert list(await heads.heads([KEY], NEWER)) == [None]
            await tier.append([write(KEY, 4, 4, [])])
            assert list(await heads.heads([KEY], STAMP)) == [None]
            await tier.append([write(KEY, 5, 5, [])], NEWER)
            assert list(await heads.heads([KEY], NEWER)) == [5]

    async def test_a_head_that_is_found_equal_counts_from_then_on(
        self, make_heads: HeadsMaker
    ) -> None:
        """So it is loaded anew after the stamp changed."""
        async with make_heads() as (tier, heads):
            await tier.append([write(KEY, 1, 3, [])], STAMP)
            await tier.append([write(KEY, 4, 3, [])], NEWER)
            assert list(await heads.heads([KEY], NEWER)) == [3]
            assert len(await tier.read(KEY, Seq(0), Seq(3))) == 3

    async def test_a_lower_head_changes_nothing(self, make_heads: HeadsMaker) -> None:
        """One that comes late must not be believed."""
        async with make_heads() as (tier, heads):
            await tier.append([write(KEY, 1, 5, [])], STAMP)
            await tier.append([write(KEY, 4, 4, [])], NEWER)
            assert list(await heads.heads([KEY], NEWER)) == [None]
            assert list(await heads.heads([KEY], STAMP)) == [5]

    async def test_thousands_are_one_call(self, make_heads: HeadsMaker) -> None:
        """A user may have so many conversations."""
        async with make_heads() as (tier, heads):
            keys = [ConversationKey(number << 50) for number in range(3_000)]
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                await tier.append([write(key, 2, 1, []) for key in some], STAMP)
            assert list(await heads.heads(keys, STAMP)) == [1] * len(keys)
