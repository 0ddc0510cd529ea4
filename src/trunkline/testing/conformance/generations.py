"""Suite of the cache generations: a register that one of many workers changes at a time."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from trunkline.core.generations import Generation
from trunkline.ports.generations import Generations

GenerationsMaker = Callable[[], AbstractAsyncContextManager[Sequence[Generations]]]
"""`make_generations()` opens the same registers, of one lane or more, as two workers see them."""


class GenerationsSuite:
    """Promises of `ports.generations.Generations`. Fixture: `make_generations`."""

    async def test_what_is_there_at_first_is_closed_and_the_same_for_all(
        self, make_generations: GenerationsMaker
    ) -> None:
        """Nothing is believed before somebody said so."""
        async with make_generations() as (one, two):
            first = await one.current(0)
            assert not first.server
            assert not first.stamp
            assert await two.current(0) == first

    async def test_it_is_replaced_only_by_who_knows_what_stands_there(
        self, make_generations: GenerationsMaker
    ) -> None:
        """Of two who saw the same, one changes it."""
        async with make_generations() as (one, two):
            first = await one.current(0)
            bound = first.bound(b"a server \x00'\\")
            assert await one.replace(0, first, bound)
            assert not await two.replace(0, first, Generation.closed(7))
            assert await two.current(0) == bound
            opened = bound.opened()
            assert await two.replace(0, bound, opened)
            assert await one.current(0) == opened
            assert opened.stamp == first.id
            assert await one.replace(0, opened, Generation.closed(2**64 - 1))
            assert (await two.current(0)).id == b"f" * 16

    async def test_it_outlives_those_who_wrote_it(self, make_generations: GenerationsMaker) -> None:
        """As all that the hot tier holds."""
        async with make_generations() as (one, _):
            first = await one.current(0)
            assert await one.replace(0, first, first.bound(b"server"))
        async with make_generations() as (one, _):
            assert await one.current(0) == first.bound(b"server")
