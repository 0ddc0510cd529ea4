"""Suite of the heads: rows by key, as of the last commit, and nothing of what does not exist."""

from typing import cast

from trunkline.model import ConversationKey
from trunkline.ports.heads import Heads
from trunkline.testing.conformance.stores import StoreMaker
from trunkline.testing.conformance.writer import Writer, view


class HeadsSuite:
    """Promises of `ports.heads.Heads`, which a hot store keeps besides its own.

    Fixtures: `make_store`, `writer`.
    """

    async def test_rows_come_in_the_keys_order_as_of_the_last_commit(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Also once they are not in memory any more."""
        names = [f"g{i}" for i in range(40)]
        async with make_store() as stores:
            await writer.append(stores.hot, *(writer.create(n, "ann", "c", ["bob"]) for n in names))
            await writer.append(stores.hot, *(writer.message(n, "bob", "m") for n in names[::2]))
            rows = [(await view(stores.hot, "ann", name))[0] for name in names]
            keys = [row.key for row in rows]
            unknown = ConversationKey(next(key for key in range(100) if key not in keys))
            heads = cast("Heads", stores.hot)
            assert list(await heads.rows([*keys[20:], unknown, *keys[:20]])) == (
                rows[20:] + rows[:20]
            )
            assert [row.head for row in rows[:4]] == [2, 1, 2, 1]
            assert not await heads.rows([])
        async with make_store() as stores:
            assert list(await cast("Heads", stores.hot).rows(keys)) == rows
