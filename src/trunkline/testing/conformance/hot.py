"""Suite of the hot store: order, durability, reading, markers, offsets, trimming."""

import asyncio

from trunkline.core.appending import AppendState, Decision
from trunkline.model import (
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    Kind,
    MarkerMove,
    OffsetMove,
    Seq,
    UserId,
)
from trunkline.testing.conformance.stores import StoreMaker
from trunkline.testing.conformance.writer import (
    Writer,
    check_view,
    fill_group,
    known_seq_of,
    mark_archived,
    name_on_shard_of,
    read_all,
    refusal_of,
    seq_of,
    view,
)

ODD_IDS = [
    "José", "jose", "Jose\u0301", "JOSÉ", "jose ", " jose", "🦊", "🦊🦊", "ﬁ", "fi", "ß", "ss",
    "a'b", 'a"b', "a%b", "a_b", "a\\b", "x" * 64, "é" * 32,
]  # fmt: skip
"""Ids which a store that compares anything but bytes holds equal, or cuts."""
HIGH_KEYS = [2**64 - 1, 2**63, 2**63 - 1, 1]
PHONE, LAPTOP = EndpointId("phone"), EndpointId("laptop")


class HotStoreSuite:
    """Promises of `ports.hot.HotStore`. Fixtures: `make_store`, `writer`."""

    async def test_entries_are_numbered_1_to_head_without_a_hole(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I1, I14."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c", ["bob"]))
            for batch in range(5):
                drafts = [
                    writer.message("g", "ann", f"{batch}-{i}", f"é{batch}.{i}") for i in range(3)
                ]
                outcomes = await writer.append(stores.hot, *drafts)
                assert [seq_of(o) for o in outcomes] == [2 + batch * 3 + i for i in range(3)]
            entries = await check_view(writer, stores.hot, "bob", "g")
            bodies = [e.body for e in entries if e.kind is Kind.MESSAGE]
            assert bodies == [f"é{b}.{i}" for b in range(5) for i in range(3)]

    async def test_a_batch_over_many_conversations_keeps_each_ones_order(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I1, I7."""
        names = [f"g{i}" for i in range(40)]
        async with make_store() as stores:
            await writer.append(stores.hot, *(writer.create(n, "ann", "c", ["bob"]) for n in names))
            rounds = [writer.message(n, "ann", str(i), f"{n} {i}") for i in range(6) for n in names]
            await writer.append(stores.hot, *rounds)
            for name in names:
                of_ann = await check_view(writer, stores.hot, "ann", name)
                assert [e.body for e in of_ann[1:]] == [f"{name} {i}" for i in range(6)]
                assert await check_view(writer, stores.hot, "bob", name) == of_ann

    async def test_writers_at_the_same_time_get_distinct_seqs(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I1, I3."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        writer.append(stores.hot, writer.message("g", "ann", f"m{i}"))
                    )
                    for i in range(20)
                ]
            assert sorted(seq_of(task.result()[0]) for task in tasks) == list(range(2, 22))
            await check_view(writer, stores.hot, "ann", "g")

    async def test_refused_drafts_leave_no_hole_and_take_nothing_with_them(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I1, I13."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            outcomes = await writer.append(
                stores.hot,
                writer.message("g", "ann", "1"),
                writer.message("g", "eve", "2"),
                writer.message("nowhere", "ann", "3"),
                writer.create("g", "ann", "4"),
                writer.message("g", "ann", "5"),
            )
            assert [seq_of(outcomes[0]), seq_of(outcomes[4])] == [2, 3]
            codes = [refusal_of(outcome) for outcome in outcomes[1:4]]
            assert codes == ["not_member", "not_member", "conversation_exists"]
            await check_view(writer, stores.hot, "ann", "g")
            nowhere = ConversationId("nowhere")
            assert await stores.hot.views(UserId("ann"), [nowhere]) == {}

    async def test_a_decision_that_fails_changes_nothing_and_blocks_nothing(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A fault of the decision is the caller's, the transaction is rolled back."""

        def fail(_drafts: object, _state: AppendState) -> Decision:
            raise ArithmeticError

        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            try:
                await stores.hot.append([writer.message("g", "ann", "1")], fail)
            except ArithmeticError:
                pass
            else:
                raise AssertionError("the decision's error was swallowed")
            assert (
                seq_of((await writer.append(stores.hot, writer.message("g", "ann", "2")))[0]) == 2
            )

    async def test_entries_are_the_same_after_a_reopen(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I2, I4."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, member = await view(stores.hot, "bob", "g")
            entries = list(await read_all(stores.hot, row))
            members = await stores.hot.members(row.key)
        for _ in range(2):
            async with make_store() as stores:
                assert await view(stores.hot, "bob", "g") == (row, member)
                assert list(await read_all(stores.hot, row)) == entries
                assert await stores.hot.members(row.key) == members
                await check_view(writer, stores.hot, "bob", "g")

    async def test_acknowledged_entries_survive_a_crash(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I2, I4, I3: and the next seq goes on behind them."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            entries = list(await read_all(stores.hot, row))
            await make_store.crash()
        async with make_store() as stores:
            assert list(await read_all(stores.hot, row)) == entries
            outcome = (await writer.append(stores.hot, writer.message("g", "ann", "after")))[0]
            assert seq_of(outcome) == row.head + 1
            await check_view(writer, stores.hot, "ann", "g")

    async def test_ids_are_told_apart_byte_by_byte(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Users, conversations and client message ids are bytes (DESIGN section 4)."""
        async with make_store() as stores:
            await writer.append(
                stores.hot, *(writer.create(i, i, "c", ["bob"], name=i) for i in ODD_IDS)
            )
            for own in ODD_IDS:
                outcomes = await writer.append(
                    stores.hot, *(writer.message(own, "bob", i, i) for i in ODD_IDS)
                )
                assert [seq_of(o) for o in outcomes] == list(range(2, len(ODD_IDS) + 2))
        async with make_store() as stores:
            for own in ODD_IDS:
                entries = await check_view(writer, stores.hot, own, own)
                assert [e.sender for e in entries] == [own] + ["bob"] * len(ODD_IDS)
                assert [e.body for e in entries[1:]] == ODD_IDS
                again = await writer.append(
                    stores.hot, *(writer.message(own, "bob", i, i) for i in ODD_IDS)
                )
                assert [known_seq_of(o) for o in again] == list(range(2, len(ODD_IDS) + 2))
                lines = await stores.hot.conversations_of(UserId(own))
                assert [line.conversation for line in lines] == [own]
            everything = await stores.hot.views(UserId("bob"), [ConversationId(i) for i in ODD_IDS])
            assert set(everything) == set(ODD_IDS)

    async def test_keys_of_64_bits_are_kept_whole(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A key's top bit is no sign."""
        async with make_store() as stores:
            names = {key: name_on_shard_of(key) for key in HIGH_KEYS}
            for key, name in names.items():
                await writer.append(
                    stores.hot,
                    writer.create(name, "ann", "c", key=key),
                    writer.message(name, "ann", "m", str(key)),
                )
                move = OffsetMove(ConversationKey(key), UserId("ann"), PHONE, Seq(2))
                await stores.hot.record([], [move])
        async with make_store() as stores:
            for key, name in names.items():
                row, _ = await view(stores.hot, "ann", name)
                assert row.key == key
                assert writer.open(row, await read_all(stores.hot, row))[1].body == str(key)
            offsets = await stores.hot.offsets(UserId("ann"), PHONE)
            assert offsets == dict.fromkeys(HIGH_KEYS, 2)

    async def test_any_range_is_answered_whole(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I8."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            for after in range(row.head + 1):
                for up_to in range(after, row.head + 1):
                    entries = await stores.hot.read(row.key, Seq(after), Seq(up_to))
                    assert [e.seq for e in entries] == list(range(after + 1, up_to + 1))

    async def test_an_unknown_conversation_reads_as_nothing(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Nothing is made up for keys and users that do not exist."""
        async with make_store() as stores:
            key = ConversationKey(77)
            assert list(await stores.hot.read(key, Seq(0), Seq(5))) == []
            assert await stores.hot.members(key) == {}
            assert list(await stores.hot.conversations_of(UserId("nobody"))) == []
            assert await stores.hot.offsets(UserId("nobody"), PHONE) == {}
            await stores.hot.trim([(key, Seq(5))])

    async def test_markers_only_move_forward_and_raise_the_users_version(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I9."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "dan", "g")
            dan = UserId("dan")
            before = (await stores.hot.conversations_of(dan))[0].version
            entries = await read_all(stores.hot, row)
            await stores.hot.record([MarkerMove(row.key, dan, Seq(5), entries[4].countable)], [])
            lines = await stores.hot.conversations_of(dan, changed_after=before)
            assert [line.conversation for line in lines] == ["g"]
            await stores.hot.record([MarkerMove(row.key, dan, Seq(3), entries[2].countable)], [])
            await stores.hot.record([MarkerMove(row.key, dan, Seq(5), entries[4].countable)], [])
            later = await stores.hot.conversations_of(dan, changed_after=lines[0].version)
            assert list(later) == []
            await make_store.crash()
        async with make_store() as stores:
            _, member = await view(stores.hot, "dan", "g")
            assert (member.marker, member.marker_countable) == (5, entries[4].countable)
            await check_view(writer, stores.hot, "dan", "g")

    async def test_a_senders_own_marker_moves_without_a_new_version(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """What one sent oneself is not unread, and is no news to one's other endpoints."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c", ["bob"]))
            before = list(await stores.hot.conversations_of(UserId("ann")))
            await writer.append(stores.hot, *(writer.message("g", "ann", str(i)) for i in range(4)))
            _, member = await view(stores.hot, "ann", "g")
            assert (member.marker, member.marker_countable) == (5, 4)
            assert list(await stores.hot.conversations_of(UserId("ann"))) == before
            await check_view(writer, stores.hot, "ann", "g")
            await check_view(writer, stores.hot, "bob", "g")

    async def test_a_senders_own_marker_survives_a_crash_behind_a_reopen(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Also where a change of the members was committed together with the messages."""
        async with make_store() as stores:
            for group in ("g", "h"):
                await writer.append(stores.hot, writer.create(group, "ann", "c", ["bob", "dan"]))
        async with make_store() as stores:
            await writer.append(stores.hot, writer.message("g", "bob", "1"))
            await writer.append(
                stores.hot,
                writer.message("h", "bob", "1"),
                writer.join("h", "ann", "j", ["eve"]),
                writer.leave("h", "dan", "l"),
            )
            await make_store.crash()
        async with make_store() as stores:
            for group in ("g", "h"):
                row, member = await view(stores.hot, "bob", group)
                assert (member.marker, member.marker_countable) == (2, 1)
                assert (await stores.hot.members(row.key))[UserId("bob")] == member
                await check_view(writer, stores.hot, "bob", group)

    async def test_read_offsets_only_move_forward_for_each_endpoint(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I9."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            ann = UserId("ann")
            for endpoint, seq in [(PHONE, 4), (LAPTOP, 2), (PHONE, 3), (PHONE, 6), (PHONE, 1)]:
                await stores.hot.record([], [OffsetMove(row.key, ann, endpoint, Seq(seq))])
            await make_store.crash()
        async with make_store() as stores:
            assert await stores.hot.offsets(ann, PHONE) == {row.key: 6}
            assert await stores.hot.offsets(ann, LAPTOP) == {row.key: 2}
            assert await stores.hot.offsets(UserId("bob"), PHONE) == {}

    async def test_moves_and_appends_at_the_same_time_lose_nothing(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I9: neither writes back what it read before the other."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "dan", "g")
            dan = UserId("dan")
            entries = await read_all(stores.hot, row)
            async with asyncio.TaskGroup() as group:
                for i, entry in enumerate(entries):
                    marker = MarkerMove(row.key, dan, entry.seq, entry.countable)
                    offset = OffsetMove(row.key, dan, PHONE, entry.seq)
                    group.create_task(stores.hot.record([marker], [offset]))
                    draft = writer.message("g", "ann", f"again{i}")
                    group.create_task(writer.append(stores.hot, draft))
        async with make_store() as stores:
            now, member = await view(stores.hot, "dan", "g")
            assert now.head == row.head + len(entries)
            assert member.marker == row.head
            assert await stores.hot.offsets(dan, PHONE) == {row.key: row.head}
            await check_view(writer, stores.hot, "dan", "g")

    async def test_nothing_is_trimmed_that_is_not_archived(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I10."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            await stores.hot.trim([(row.key, row.head)])
            assert [e.seq for e in await read_all(stores.hot, row)] == list(range(1, row.head + 1))
            await mark_archived(stores.tasks, {row.key: 4})
            await stores.hot.trim([(row.key, row.head)])
            assert (await read_all(stores.hot, row))[0].seq == 5
            assert (await view(stores.hot, "ann", "g"))[0].trimmed_up_to == 4

    async def test_a_trim_keeps_nothing_below_and_everything_behind(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I1, I8: what is missing is missing at the front only; it never comes back."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            whole = list(await read_all(stores.hot, row))
            await mark_archived(stores.tasks, {row.key: 6})
            await stores.hot.trim([(row.key, Seq(3))])
            await stores.hot.trim([(row.key, Seq(2))])
            assert list(await read_all(stores.hot, row)) == whole[3:]
            assert list(await stores.hot.read(row.key, Seq(0), Seq(3))) == []
            assert list(await stores.hot.read(row.key, Seq(1), Seq(5))) == whole[3:5]
            await make_store.crash()
        async with make_store() as stores:
            assert list(await read_all(stores.hot, row)) == whole[3:]

    async def test_a_conversation_trimmed_to_its_head_goes_on_counting(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I3."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            await mark_archived(stores.tasks, {row.key: row.head})
            await stores.hot.trim([(row.key, row.head)])
            assert list(await read_all(stores.hot, row)) == []
        async with make_store() as stores:
            await writer.append(stores.hot, writer.message("g", "bob", "next"))
            now, _ = await view(stores.hot, "ann", "g")
            assert [e.seq for e in await read_all(stores.hot, now)] == [row.head + 1]
            assert now.countable == row.countable + 1

    async def test_thousands_of_views_are_one_call(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """A sync asks so; unknown ids and those of others are left out."""
        names = [f"g{i}" for i in range(1_500)]
        async with make_store() as stores:
            for i in range(0, len(names), 250):
                drafts: list[Draft] = [
                    writer.create(name, "ann", "c", ["bob"]) for name in names[i : i + 250]
                ]
                await writer.append(stores.hot, *drafts)
            asked = [ConversationId(name) for name in [*names, "unknown"]]
            assert set(await stores.hot.views(UserId("bob"), asked)) == set(names)
            assert await stores.hot.views(UserId("eve"), asked) == {}
            assert len(await stores.hot.conversations_of(UserId("bob"))) == len(names)
