"""Suite of a cached tier that several workers share: an append names who else watches."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from trunkline.model import ConversationKey, WorkerId
from trunkline.ports.cached import CachedTier
from trunkline.testing.conformance.cached import Source
from trunkline.testing.conformance.writer import Writer

TiersMaker = Callable[..., AbstractAsyncContextManager[Sequence[CachedTier]]]
"""`make_tiers(*workers)` opens one empty tier, as each of these workers sees it."""

ONE, TWO, THREE = WorkerId("worker-1"), WorkerId("worker-2"), WorkerId("worker-3")


class WatchingSuite:
    """Promises of a shared `ports.cached.CachedTier`. Fixtures: `make_tiers`, `writer`."""

    async def test_an_append_names_the_other_workers_that_watch(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """DESIGN section 3: none where nobody else watches."""
        source = Source(writer)
        async with make_tiers(ONE, TWO, THREE) as (one, two, three):
            assert await one.append(await source.create()) == {}
            await one.watch([source.key])
            assert await one.append(await source.send(1)) == {}
            await two.watch([source.key])
            assert await one.append(await source.send(1)) == {source.key: [TWO]}
            found = await three.append(await source.send(1))
            assert {key: sorted(workers) for key, workers in found.items()} == {
                source.key: [ONE, TWO]
            }

    async def test_who_watched_before_the_first_entry_is_named_by_it(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """Also for a conversation that is not cached."""
        source = Source(writer)
        async with make_tiers(ONE, TWO) as (one, two):
            await two.watch([source.key])
            assert await one.append(await source.create()) == {source.key: [TWO]}

    async def test_what_came_before_is_answered_with_the_watchers_too(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """DESIGN section 3, step 6: the first worker may have died before it published."""
        source = Source(writer)
        async with make_tiers(ONE, TWO) as (one, two):
            await two.watch([source.key])
            writes = await source.create()
            await one.append(writes)
            assert await one.append(writes) == {source.key: [TWO]}

    async def test_who_watches_no_more_is_not_named(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """Keys that were never watched do no harm."""
        source = Source(writer)
        async with make_tiers(ONE, TWO, THREE) as (one, two, three):
            await two.watch([source.key])
            await three.watch([source.key])
            await two.unwatch([source.key, ConversationKey(9)])
            assert await one.append(await source.create()) == {source.key: [THREE]}

    async def test_a_dead_watcher_is_taken_out_by_another(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """A publish that nobody hears removes that watcher, and only that one."""
        source = Source(writer)
        async with make_tiers(ONE, TWO, THREE) as (one, two, three):
            await two.watch([source.key])
            await three.watch([source.key])
            await one.unwatch([source.key], THREE)
            assert await one.append(await source.create()) == {source.key: [TWO]}

    async def test_thousands_of_conversations_are_watched_by_one_call(
        self, make_tiers: TiersMaker, writer: Writer
    ) -> None:
        """As a worker does that starts to serve a crowd."""
        source = Source(writer)
        keys = [ConversationKey(number) for number in range(5_000)]
        async with make_tiers(ONE, TWO) as (one, two):
            await two.watch([*keys, source.key])
            assert await one.append(await source.create()) == {source.key: [TWO]}
            await two.unwatch([*keys, source.key])
            assert await one.append(await source.send(1)) == {}
