"""Suite of resends: one client message id of one sender in one conversation, one seq (I6)."""

from trunkline.model import Seq
from trunkline.testing.conformance.stores import StoreMaker
from trunkline.testing.conformance.writer import (
    Writer,
    check_view,
    known_seq_of,
    mark_archived,
    read_all,
    seq_of,
    view,
)


class ResendingSuite:
    """Promise I6 of `ports.hot.HotStore`. Fixtures: `make_store`, `writer`."""

    async def test_a_resend_returns_the_first_seq(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """In a later batch, twice in one batch, and with another body: the first one stands."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            once = await writer.append(
                stores.hot,
                writer.message("g", "ann", "m", "first"),
                writer.message("g", "ann", "m", "second"),
                writer.message("g", "ann", "n", "other"),
            )
            assert [seq_of(once[0]), known_seq_of(once[1]), seq_of(once[2])] == [2, 2, 3]
            again = await writer.append(stores.hot, writer.message("g", "ann", "m", "third"))
            assert known_seq_of(again[0]) == 2
            entries = await check_view(writer, stores.hot, "ann", "g")
            assert [e.body for e in entries[1:]] == ["first", "other"]

    async def test_a_resend_after_a_reopen_or_a_crash_returns_the_first_seq(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """The answer may have been lost with the process that would have given it."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
        async with make_store() as stores:
            again = await writer.append(stores.hot, writer.message("g", "ann", "m"))
            assert known_seq_of(again[0]) == 2
            assert (
                seq_of((await writer.append(stores.hot, writer.message("g", "ann", "n")))[0]) == 3
            )
            await make_store.crash()
        async with make_store() as stores:
            again = await writer.append(
                stores.hot, writer.message("g", "ann", "m"), writer.message("g", "ann", "n")
            )
            assert [known_seq_of(outcome) for outcome in again] == [2, 3]

    async def test_ids_that_a_store_may_keep_in_short_are_known_again_and_never_mixed_up(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """UUIDs with and without hyphens, in capitals, and what only looks like one."""
        bare = "0192f0c1d2e37a45b6c7d8e9f0a1b2c3"
        hyphened = "0192f0c1-d2e3-7a45-b6c7-d8e9f0a1b2c3"
        ids = [bare, hyphened, bare.upper(), hyphened.upper(), hyphened.replace("-", " "), "0" * 36]
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            first = await writer.append(stores.hot, *(writer.message("g", "ann", i) for i in ids))
            assert [seq_of(outcome) for outcome in first] == [2, 3, 4, 5, 6, 7]
        async with make_store() as stores:
            again = await writer.append(stores.hot, *(writer.message("g", "ann", i) for i in ids))
            assert [known_seq_of(outcome) for outcome in again] == [2, 3, 4, 5, 6, 7]
            row, _ = await view(stores.hot, "ann", "g")
            kept = [entry.client_message_id for entry in await read_all(stores.hot, row)]
            assert kept[1:] == ids

    async def test_a_resend_after_the_trim_returns_the_first_seq(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Ids outlive the entries in the hot tier."""
        ids = [f"m{i}" for i in range(6)]
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            await writer.append(stores.hot, *(writer.message("g", "ann", i) for i in ids))
            row, _ = await view(stores.hot, "ann", "g")
            await mark_archived(stores.tasks, {row.key: row.head})
            await stores.hot.trim([(row.key, row.head)])
            assert list(await read_all(stores.hot, row)) == []
        async with make_store() as stores:
            again = await writer.append(
                stores.hot, *(writer.message("g", "ann", i) for i in reversed(ids))
            )
            assert [known_seq_of(outcome) for outcome in again] == [7, 6, 5, 4, 3, 2]

    async def test_ids_below_and_above_the_senders_highest_are_told_from_known_ones(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """An id need not rise; that it does is only a way to see early that it is new."""
        order = ["m5", "m9", "m1", "m7", "m3", "mz", "m", "é", "z", "🦊", "\U0010ffff", "\uffff"]
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            for seq, message_id in enumerate(order, 2):
                outcome = await writer.append(stores.hot, writer.message("g", "ann", message_id))
                assert seq_of(outcome[0]) == seq
                for known, earlier in enumerate(order[: seq - 1], 2):
                    draft = writer.message("g", "ann", earlier)
                    assert known_seq_of((await writer.append(stores.hot, draft))[0]) == known
        async with make_store() as stores:
            again = await writer.append(
                stores.hot, *(writer.message("g", "ann", i) for i in [*order, "m4", "mzz"])
            )
            assert [known_seq_of(o) for o in again[: len(order)]] == list(range(2, len(order) + 2))
            assert [seq_of(o) for o in again[len(order) :]] == [Seq(14), Seq(15)]

    async def test_the_same_id_of_others_and_elsewhere_is_another_message(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """The identity is conversation, sender and client message id."""
        async with make_store() as stores:
            outcomes = await writer.append(
                stores.hot,
                writer.create("g", "ann", "same", ["bob"]),
                writer.create("h", "ann", "same", ["bob"]),
                writer.message("g", "bob", "same"),
                writer.message("h", "bob", "same"),
            )
            assert [seq_of(outcome) for outcome in outcomes] == [1, 1, 2, 2]
        async with make_store() as stores:
            again = await writer.append(
                stores.hot,
                writer.message("h", "bob", "same"),
                writer.message("g", "bob", "same"),
                writer.create("g", "ann", "same", ["bob"]),
            )
            assert [known_seq_of(outcome) for outcome in again] == [2, 2, 1]

    async def test_membership_operations_are_resent_like_messages(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A resent join adds nobody twice, not even after they left."""
        async with make_store() as stores:
            await writer.append(
                stores.hot,
                writer.create("g", "ann", "1"),
                writer.join("g", "ann", "2", ["bob"]),
                writer.leave("g", "bob", "3"),
                writer.rename("g", "ann", "4", "new"),
            )
            again = await writer.append(
                stores.hot,
                writer.create("g", "ann", "1"),
                writer.join("g", "ann", "2", ["bob"]),
                writer.leave("g", "bob", "3"),
                writer.rename("g", "ann", "4", "newer"),
            )
            assert [known_seq_of(outcome) for outcome in again] == [1, 2, 3, 4]
            row, member = await view(stores.hot, "bob", "g")
            assert (row.head, row.member_count, member.left_at) == (4, 1, 3)

    async def test_a_first_send_resent_creates_one_conversation_and_one_message(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Each try brings a fresh key along; only the first is used."""
        async with make_store() as stores:
            first = await writer.append(
                stores.hot,
                writer.first_send("ann", "bob", "m"),
                writer.first_send("ann", "bob", "m"),
            )
            assert [seq_of(first[0]), known_seq_of(first[1])] == [2, 2]
        async with make_store() as stores:
            again = await writer.append(stores.hot, writer.first_send("ann", "bob", "m"))
            assert known_seq_of(again[0]) == 2

    async def test_a_refused_id_is_free_to_be_sent_again(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Only what was stored is known."""
        async with make_store() as stores:
            refused = await writer.append(
                stores.hot,
                writer.create("g", "ann", "c"),
                writer.message("g", "bob", "m"),
                writer.join("g", "ann", "j", ["bob"]),
                writer.message("g", "bob", "m"),
            )
            assert seq_of(refused[3]) == 3
