"""Suite of the wrapped keys in a hot store: replaced under traffic, destroyed for ever."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from trunkline.core.appending import AppendPlanner
from trunkline.core.member_macs import MemberMacs
from trunkline.model import Conversation, ConversationId, UserId
from trunkline.ports.keys import WrappedKeys
from trunkline.ports.sealer import Sealer
from trunkline.services.keys import SHREDDED, KeyChanges
from trunkline.testing.conformance.stores import Stores
from trunkline.testing.conformance.writer import (
    FOREVER_SECONDS,
    GROUP_MEMBERS,
    Writer,
    check_view,
    fill_group,
    known_seq_of,
    read_all,
    refusal_of,
    seq_of,
    view,
)


class KeyStores(Stores, Protocol):
    """Stores with the wrapped keys that they hold."""

    @property
    def keys(self) -> WrappedKeys:
        """The wrapped keys of the hot store."""
        ...


KeyStoreMaker = Callable[[], AbstractAsyncContextManager[KeyStores]]
Sealers = tuple[Sealer, Sealer]
"""One that wraps with KEK 1, and one that has it too and wraps with KEK 2."""


class WrappedKeysSuite:
    """Promises of `ports.keys.WrappedKeys`. Fixtures: `make_keys`, `sealers`."""

    async def test_every_conversation_is_rewrapped_once_and_opens_as_before(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """More of them than one run holds."""
        old, new = sealers
        writer = Writer(old)
        async with make_keys() as stores:
            for number in range(0, 300, 100):
                drafts = [
                    writer.first_send("ann", f"u{n}", "1") for n in range(number, number + 100)
                ]
                await writer.append(stores.hot, *drafts)
            await fill_group(writer, stores.hot)
            assert _summed(await stores.keys.counts()) == {1: 301}
            changes = KeyChanges(stores.hot, stores.keys, stores.cold, new)
            assert await changes.rewrap() == 301
            assert _summed(await stores.keys.counts()) == {2: 301}
            assert await changes.rewrap() == 0
        async with make_keys() as stores:
            assert len(await check_view(Writer(new), stores.hot, "dan", "g")) == 9
            row, _ = await view(stores.hot, "ann", "g")
            metadata = await stores.cold.metadata(row.key)
            if metadata is not None:  # of a cold store that outlives its opening
                assert metadata.conversation.wrapped_key == row.wrapped_key

    async def test_members_get_their_macs_with_the_key_that_is_wrapped(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """Over whatever stood there before; views, markers and lists stay as they are."""
        old, new = sealers
        writer, foreign = Writer(old), MemberMacs(b"f" * 32)
        writer.decide = AppendPlanner(old.cipher, foreign, group_members=GROUP_MEMBERS).decide
        async with make_keys() as stores:
            await fill_group(writer, stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            before = await stores.hot.members(row.key)
            assert not any(new.macs.hold(row.key, member) for member in before.values())
            assert await KeyChanges(stores.hot, stores.keys, stores.cold, new).bind() == 1
            after = await stores.hot.members(row.key)
            assert after == {user: new.macs.seal(row.key, m) for user, m in before.items()}
            assert len(await check_view(Writer(new), stores.hot, "dan", "g")) == 9

    async def test_an_append_keeps_what_was_rewrapped_before_it(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """Also one by a worker that knew the conversation under its old key."""
        old, new = sealers
        writer = Writer(new)
        writer.decide = AppendPlanner(new.cipher, new.macs, group_members=GROUP_MEMBERS).decide
        async with make_keys() as stores:
            await fill_group(Writer(old), stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            await writer.append(stores.hot, writer.message("g", "ann", "before"))
            wrapped = new.rewrapped(row.wrapped_key, row.place)
            (after,) = await stores.keys.rewrap([(row, wrapped)])
            assert (after.wrapped_key, after.head) == (wrapped, 10)
            assert seq_of((await writer.append(stores.hot, writer.message("g", "bob", "after")))[0])
            await writer.append(stores.hot, writer.rename("g", "bob", "named", "other"))
            now, _ = await view(stores.hot, "ann", "g")
            assert now.wrapped_key == wrapped
            assert len(await check_view(writer, stores.hot, "ann", "g")) == 12

    async def test_of_two_who_rewrap_the_first_counts(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """The other finds another key than it read, and leaves it."""
        old, new = sealers
        async with make_keys() as stores:
            await fill_group(Writer(old), stores.hot)
            row, _ = await view(stores.hot, "ann", "g")
            first, second = (
                new.rewrapped(row.wrapped_key, row.place),
                new.rewrapped(row.wrapped_key, row.place),
            )
            await stores.keys.rewrap([(row, first)])
            (after,) = await stores.keys.rewrap([(row, second)])
            assert after.wrapped_key == first

    async def test_what_was_shredded_is_refused_for_ever_and_told_to_its_members(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """Head, digest and entries stay; the rest of the batch is stored."""
        old, new = sealers
        writer = Writer(old)
        async with make_keys() as stores:
            await fill_group(writer, stores.hot)
            await writer.append(stores.hot, writer.first_send("ann", "bob", "1"))
            before, _ = await view(stores.hot, "ann", "g")
            (line,) = [
                line
                for line in await stores.hot.conversations_of(UserId("dan"))
                if line.conversation == "g"
            ]
            changes = KeyChanges(stores.hot, stores.keys, stores.cold, old)
            assert (await changes.shred(ConversationId("g"))).head == 9
            assert (await changes.shred(ConversationId("g"))).head == 9
            outcomes = await writer.append(
                stores.hot,
                writer.message("g", "ann", "more"),
                writer.first_send("ann", "bob", "2"),
            )
            assert refusal_of(outcomes[0]) == "conversation_shredded"
            assert seq_of(outcomes[1]) == 3
            resent = await writer.append(stores.hot, writer.message("g", "ann", "fill1"))
            assert known_seq_of(resent[0]) == 3
        async with make_keys() as stores:
            after = await stores.keys.find(ConversationId("g"))
            assert after is not None
            assert (after.wrapped_key, after.sealed_name) == (b"", b"")
            assert _kept(after) == _kept(before)
            assert len(await read_all(stores.hot, after)) == 9
            assert await stores.hot.conversations_of(UserId("dan"), changed_after=line.version)
            assert _summed(await stores.keys.counts()) == {1: 1, SHREDDED: 1}
            changes = KeyChanges(stores.hot, stores.keys, stores.cold, new)
            assert await changes.rewrap() == 1
            leased = await stores.tasks.lease(10, FOREVER_SECONDS)
            assert "g" not in {task.conversation.id for task in leased}

    async def test_to_outsiders_a_shredded_conversation_is_none(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """I13: neither to strangers nor to who was gone before; its id stays taken."""
        old, _ = sealers
        writer = Writer(old)
        async with make_keys() as stores:
            await fill_group(writer, stores.hot)
            await writer.append(stores.hot, writer.leave("g", "ann", "l", ["bob"]))
            await KeyChanges(stores.hot, stores.keys, stores.cold, old).shred(ConversationId("g"))
            for user in ("eve", "bob"):
                outcomes = await writer.append(
                    stores.hot,
                    writer.message("g", user, "1"),
                    writer.join("g", user, "2", [user]),
                    writer.leave("g", user, "3", ["ann"]),
                    writer.rename("g", user, "4", "mine"),
                    writer.create("g", user, "5"),
                )
                codes = [refusal_of(outcome) for outcome in outcomes]
                assert codes == ["not_member"] * 4 + ["conversation_exists"]

    async def test_a_task_that_was_leased_before_the_shredding_ends_with_it(
        self, make_keys: KeyStoreMaker, sealers: Sealers
    ) -> None:
        """Nothing could be copied any more."""
        old, _ = sealers
        async with make_keys() as stores:
            await fill_group(Writer(old), stores.hot)
            tasks = await stores.tasks.lease(10, FOREVER_SECONDS)
            await KeyChanges(stores.hot, stores.keys, stores.cold, old).shred(ConversationId("g"))
            await stores.tasks.done(tasks)
            assert (await stores.tasks.waiting()).conversations == 0


def _kept(row: Conversation) -> tuple[object, ...]:
    return (row.key, row.head, row.digest, row.countable, row.member_count)


def _summed(counts: Mapping[str, Mapping[int, int]]) -> dict[int, int]:
    summed: dict[int, int] = {}
    for counted in counts.values():
        for kek_id, count in counted.items():
            summed[kek_id] = summed.get(kek_id, 0) + count
    return summed
