"""Suite of membership: who sees which range, with exact digests, and whose list changes."""

from trunkline.core.envelope import name_associated_data
from trunkline.core.ids import single_conversation_id
from trunkline.core.views import view_of
from trunkline.model import ConversationId, ConversationKind, Kind, UserId
from trunkline.ports.hot import HotStore
from trunkline.testing.conformance.stores import StoreMaker
from trunkline.testing.conformance.writer import (
    Writer,
    check_view,
    fill_group,
    refusal_of,
    seq_of,
    view,
)


async def _version(hot: HotStore, user: str) -> int:
    lines = await hot.conversations_of(UserId(user))
    return max((line.version for line in lines), default=0)


class MembershipSuite:
    """Membership in `ports.hot.HotStore` (I13, I14). Fixtures: `make_store`, `writer`."""

    async def test_a_group_is_created_with_its_members_and_its_sealed_name(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Entry 1 is `created`; all members see it."""
        async with make_store() as stores:
            await writer.append(
                stores.hot, writer.create("g", "ann", "c", ["bob", "ann", "bob"], name="Süß 🦊")
            )
        async with make_store() as stores:
            row, member = await view(stores.hot, "bob", "g")
            assert (row.kind, row.head, row.member_count) == (ConversationKind.GROUP, 1, 2)
            assert set(await stores.hot.members(row.key)) == {"ann", "bob"}
            assert view_of(row, member).first == 1
            cipher = writer.sealer.cipher(row.wrapped_key, row.place)
            name = cipher.open(row.sealed_name, name_associated_data(row.id))
            assert name.decode() == "Süß 🦊"
            entries = await check_view(writer, stores.hot, "bob", "g")
            assert [e.kind for e in entries] == [Kind.CREATED]

    async def test_who_joins_later_sees_from_the_joining_entry_on(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I13, I14: the view's digest needs nothing of what is hidden."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            joined = await writer.append(
                stores.hot,
                writer.join("g", "ann", "j", ["cid"]),
                writer.message("g", "ann", "m"),
                writer.message("g", "cid", "n"),
            )
            assert [seq_of(outcome) for outcome in joined] == [10, 11, 12]
        async with make_store() as stores:
            entries = await check_view(writer, stores.hot, "cid", "g")
            assert [e.seq for e in entries] == [10, 11, 12]
            assert [e.seq for e in await check_view(writer, stores.hot, "bob", "g")][-1] == 12

    async def test_who_left_sees_up_to_the_leaving_entry_and_sends_no_more(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I13, also for what comes later in the same batch."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            outcomes = await writer.append(
                stores.hot,
                writer.message("g", "ann", "m1"),
                writer.leave("g", "ann", "l", ["bob"]),
                writer.message("g", "bob", "late"),
                writer.message("g", "ann", "m2"),
            )
            assert refusal_of(outcomes[2]) == "not_member"
            assert seq_of(outcomes[3]) == 12
            await make_store.crash()
        async with make_store() as stores:
            late = await writer.append(stores.hot, writer.message("g", "bob", "later"))
            assert refusal_of(late[0]) == "not_member"
            row, member = await view(stores.hot, "bob", "g")
            assert view_of(row, member).left
            assert row.member_count == 2
            entries = await check_view(writer, stores.hot, "bob", "g")
            assert [e.seq for e in entries] == list(range(1, 12))
            assert [line.conversation for line in await stores.hot.conversations_of(UserId("bob"))]

    async def test_who_left_sees_no_name_that_came_later(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I13: nor whether there is one; who comes back sees it."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c", ["bob"], name="Ours"))
            assert view_of(*await view(stores.hot, "bob", "g")).sealed_name
            await writer.append(stores.hot, writer.leave("g", "ann", "l", ["bob"]))
            await writer.append(stores.hot, writer.rename("g", "ann", "r", "Without him"))
        async with make_store() as stores:
            assert not view_of(*await view(stores.hot, "bob", "g")).sealed_name
            assert view_of(*await view(stores.hot, "ann", "g")).sealed_name
            await writer.append(stores.hot, writer.join("g", "ann", "j", ["bob"]))
            assert view_of(*await view(stores.hot, "bob", "g")).sealed_name

    async def test_who_comes_back_sees_from_the_return_on(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I13: in batches of their own and in a single one."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            await writer.append(stores.hot, writer.leave("g", "bob", "l1"))
            await writer.append(stores.hot, writer.message("g", "ann", "hidden"))
            await writer.append(stores.hot, writer.join("g", "ann", "j1", ["bob"]))
            entries = await check_view(writer, stores.hot, "bob", "g")
            assert [e.seq for e in entries] == [12]
            await writer.append(
                stores.hot,
                writer.message("g", "bob", "m"),
                writer.leave("g", "bob", "l2"),
                writer.message("g", "ann", "hidden too"),
                writer.join("g", "ann", "j2", ["bob"]),
                writer.message("g", "ann", "seen"),
            )
        async with make_store() as stores:
            entries = await check_view(writer, stores.hot, "bob", "g")
            assert [(e.seq, e.kind) for e in entries] == [(16, Kind.JOINED), (17, Kind.MESSAGE)]
            row, _ = await view(stores.hot, "ann", "g")
            assert row.member_count == 3

    async def test_each_change_of_membership_raises_the_version_of_those_concerned(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Versions only rise, also over a reopen; others' lists stay as they are."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            ann, bob = await _version(stores.hot, "ann"), await _version(stores.hot, "bob")
            await writer.append(stores.hot, writer.create("h", "bob", "c"))
            created = await _version(stores.hot, "bob")
            assert created > bob
        async with make_store() as stores:
            await writer.append(stores.hot, writer.leave("g", "bob", "l"))
            left = await _version(stores.hot, "bob")
            assert left > created
            lines = await stores.hot.conversations_of(UserId("bob"), changed_after=created)
            assert [line.conversation for line in lines] == ["g"]
            await make_store.crash()
        async with make_store() as stores:
            await writer.append(stores.hot, writer.join("g", "ann", "j", ["bob"]))
            assert await _version(stores.hot, "bob") > left
            assert await _version(stores.hot, "ann") == ann

    async def test_a_membership_version_rises_with_each_change(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Workers see by it that their list of members is old."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            first = (await view(stores.hot, "ann", "g"))[0].membership_version
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
            assert (await view(stores.hot, "ann", "g"))[0].membership_version == first
            await writer.append(stores.hot, writer.join("g", "ann", "j", ["cid"]))
            assert (await view(stores.hot, "ann", "g"))[0].membership_version > first

    async def test_a_first_send_creates_the_single_conversation_for_both(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Entry 1 `created`, the message entry 2; the answer of the other goes to the same."""
        async with make_store() as stores:
            sent = await writer.append(stores.hot, writer.first_send("José", "jose", "m", "hi"))
            answer = await writer.append(stores.hot, writer.first_send("jose", "José", "m", "ho"))
            assert [seq_of(sent[0]), seq_of(answer[0])] == [2, 3]
        async with make_store() as stores:
            single = single_conversation_id(UserId("José"), UserId("jose"))
            for user in ("José", "jose"):
                entries = await check_view(writer, stores.hot, user, single)
                kinds = [e.kind for e in entries]
                assert kinds == [Kind.CREATED, Kind.MESSAGE, Kind.MESSAGE]
                assert [e.body for e in entries[1:]] == ["hi", "ho"]
            row, _ = await view(stores.hot, "jose", single)
            assert (row.kind, row.member_count) == (ConversationKind.SINGLE, 2)

    async def test_two_first_sends_of_both_sides_in_one_batch_meet(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Whoever comes first creates; the other's fresh key is not used."""
        async with make_store() as stores:
            outcomes = await writer.append(
                stores.hot,
                writer.first_send("ann", "bob", "m"),
                writer.first_send("bob", "ann", "m"),
            )
            assert [seq_of(outcome) for outcome in outcomes] == [2, 3]
            single = single_conversation_id(UserId("ann"), UserId("bob"))
            await check_view(writer, stores.hot, "ann", single)

    async def test_strangers_learn_nothing(self, make_store: StoreMaker, writer: Writer) -> None:
        """I13: what is not there and what is not theirs look the same."""
        async with make_store() as stores:
            await fill_group(writer, stores.hot)
            outcomes = await writer.append(
                stores.hot,
                writer.message("g", "eve", "1"),
                writer.join("g", "eve", "2", ["eve"]),
                writer.leave("g", "eve", "3", ["bob"]),
                writer.rename("g", "eve", "4", "mine"),
                writer.rename("absent", "eve", "5", "mine"),
            )
            assert {refusal_of(outcome) for outcome in outcomes} == {"not_member"}
            assert await stores.hot.views(UserId("eve"), [ConversationId("g")]) == {}
            assert list(await stores.hot.conversations_of(UserId("eve"))) == []
