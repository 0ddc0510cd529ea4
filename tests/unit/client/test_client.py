"""The client against a server in memory: sends, pushes, pulls, and what goes wrong between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.client import MemoryStore, OnOpen
from trunkline.errors import (
    DigestMismatch,
    NotMember,
    TrunklineError,
)
from trunkline.model import ConversationId, Entry, Kind, Seq, UserId
from trunkline.wire.encoding import JSON
from trunkline.wire.frames import Confirm, Mark, Pull, Send, Sync


async def test_a_send_is_answered_with_its_seq_and_stands_in_the_own_copy(
    assert_proven: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        sent = await ann.send("room", "hello")
        assert (sent.seq, sent.duplicate) == (2, False)
        assert [m.body for m in await ann.history("room")][1:] == ["hello"]
        assert_proven(ann, server, "room")


async def test_an_echo_bot_answers_each_message_once(
    take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "bot", "bob")
    async with client_of("bot") as bot, client_of("bob") as bob:
        await bot.wait_synced()
        await bob.wait_synced()
        await bob.send("room", "one")
        await bob.send("room", "two")
        async for message in bot.messages():
            await bot.send(message.conversation, f"echo: {message.body}")
            if message.body == "two":
                break
        heard = await take(bob, 2)
    assert [m.body for m in heard] == ["echo: one", "echo: two"]


async def test_a_json_client_sees_what_a_messagepack_client_sends(
    take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann", encoding=JSON) as ann, client_of("bob") as bob:
        await ann.wait_synced()
        await bob.send_json("room", {"a": [1, "ü"]})
        (message,) = await take(ann, 1)
    assert message.json() == {"a": [1, "ü"]}


async def test_a_first_send_to_a_user_makes_the_single_conversation_for_both(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    async with client_of("ann") as ann, client_of("bob") as bob:
        await ann.wait_synced()
        await bob.wait_synced()
        sent = await ann.send_to("bob", "hello")
        server.notify(sent.conversation)
        (message,) = await take(bob, 1)
        assert (message.conversation, message.seq, message.body) == (sent.conversation, 2, "hello")
        await ann.open(sent.conversation)
        assert_proven(ann, server, sent.conversation)


async def test_a_lost_push_is_pulled_after_the_next_one(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.lose_pushes = True
        server.say("room", "bob", "one", "two")
        server.lose_pushes = False
        server.say("room", "bob", "three")
        assert [m.body for m in await take(ann, 3)] == ["one", "two", "three"]
        assert ann.counters.gaps_seen == 1
        assert_proven(ann, server, "room")


async def test_a_doubled_push_is_dropped(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    server.double_pushes = True
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.say("room", "bob", "one", "two")
        assert [m.body for m in await take(ann, 2)] == ["one", "two"]
        server.say("room", "bob", "three")
        await take(ann, 3)
        assert ann.counters.duplicates_dropped >= 2
        assert_proven(ann, server, "room")


async def test_what_was_missed_while_away_is_pulled_page_by_page(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    store = MemoryStore()
    server.create("room", "ann", "bob")
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
    server.page_entries = 7
    server.say("room", "bob", *(str(n) for n in range(50)))
    async with client_of("ann", store=store) as ann:
        assert [m.body for m in await take(ann, 50)] == [str(n) for n in range(50)]
        assert_proven(ann, server, "room")
        assert ann.counters.pulled == 50
    asked = [frame.ranges for frame in server.frames(Pull)][-8:]
    assert [bool(ranges) for ranges in asked] == [True] + [False] * 7


async def test_a_long_sync_answer_is_taken_page_by_page(server: Any, client_of: Any) -> None:
    server.page_conversations = 2
    for number in range(5):
        server.create(f"room {number}", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        assert {one.conversation for one in ann.conversations()} == set(server.conversations)
        assert all(one.last == one.head == 1 for one in ann.conversations())


async def test_a_synced_endpoint_that_comes_back_pulls_nothing_and_sends_no_vector(
    server: Any, client_of: Any
) -> None:
    store = MemoryStore()
    server.create("room", "ann", "bob")
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
    server.received.clear()
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
    assert server.frames(Pull) == []
    assert [(sync.vector, sync.cursor) for sync in server.frames(Sync)] == [(None, 1)]


async def test_a_new_store_of_a_known_endpoint_sends_its_vector_and_pulls_everything(
    assert_proven: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
    async with client_of("ann") as ann:
        await ann.wait_synced()
        assert_proven(ann, server, "room")
    assert server.frames(Sync)[-1].vector == {}


async def test_a_copy_that_differs_is_reported_and_healed_and_its_messages_come_once(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    reported: list[TrunklineError] = []
    store = MemoryStore()
    server.create("room", "ann", "bob")
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
    server.say("room", "bob", "one", "two")
    forgeries = [True]

    def forge_once(entry: Entry) -> Entry:
        if entry.seq == 3 and forgeries:
            forgeries.pop()
            return Entry(entry.seq, entry.sender, entry.time_ms, "forged")
        return entry

    server.change_pulled = forge_once
    async with client_of("ann", store=store, report=reported.append) as ann:
        await ann.wait_synced()
        assert ann.counters.digest_mismatches == 1
        assert [type(error) for error in reported] == [DigestMismatch]
        assert_proven(ann, server, "room")
        assert [m.body for m in await ann.history("room")][1:] == ["one", "two"]
        assert [m.seq for m in await take(ann, 2)] == [2, 3]


async def test_a_copy_that_always_differs_is_not_pulled_for_ever(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    server.change_pulled = lambda e: Entry(e.seq, e.sender, e.time_ms, "forged")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        assert ann.counters.digest_mismatches == 4
        assert ann.conversation("room").last == 0


async def test_a_view_that_begins_anew_drops_what_lies_before(
    take: Any, server: Any, client_of: Any
) -> None:
    room = server.create("room", "ann", "bob")
    server.say("room", "bob", "old", "older")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        assert ann.proof("room").first == 1
        room.first[UserId("ann")] = Seq(4)
        server.lose_pushes = True
        server.say("room", "bob", "new")
        server.notify("room")
        assert [m.body for m in await take(ann, 1)] == ["new"]
        assert (ann.proof("room").first, ann.proof("room").last) == (4, 4)
        assert [m.body for m in await ann.history("room")] == ["new"]


async def test_only_what_is_durable_is_confirmed_and_many_entries_in_one_frame(
    server: Any, client_of: Any, eventually: Any
) -> None:
    for name in ("a", "b", "c"):
        server.create(name, "ann", "bob")
        server.say(name, "bob", *map(str, range(9)))
    store = MemoryStore()
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        await eventually(lambda: bool(server.frames(Confirm)))
        store.crash(UserId("ann"), ann.endpoint)
        assert [frame.offsets for frame in server.frames(Confirm)] == [{"a": 10, "b": 10, "c": 10}]
    async with client_of("ann", store=store) as ann:
        assert [ann.proof(name).last for name in ("a", "b", "c")] == [10, 10, 10]


async def test_what_a_power_cut_took_from_the_store_is_pulled_again(
    assert_proven: Any, take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    store = MemoryStore()
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        server.say("room", "bob", "one")
        await take(ann, 1)
        store.crash(UserId("ann"), ann.endpoint)
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        assert_proven(ann, server, "room")


async def test_under_the_policy_on_open_only_what_is_opened_is_pulled_and_kept_complete(
    take: Any, server: Any, client_of: Any
) -> None:
    for name in ("a", "b"):
        server.create(name, "ann", "bob")
        server.say(name, "bob", "one", "two")
    async with client_of("ann", policy=OnOpen()) as ann:
        await ann.wait_synced()
        assert server.frames(Pull) == []
        assert ann.conversation("a").unread == 2
        assert [m.body for m in await ann.history("a")][1:] == ["one", "two"]
        server.say("b", "bob", "three")
        server.say("a", "bob", "three")
        assert [m.body for m in await take(ann, 1)] == ["three"]
        assert ann.conversation("a").last == 4
        assert (ann.conversation("b").last, ann.conversation("b").unread) == (0, 3)


async def test_marking_moves_the_marker_and_counts_what_is_left(
    take: Any, server: Any, client_of: Any, eventually: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.say("room", "bob", "one", "two", "three")
        await take(ann, 3)
        assert ann.conversation("room").unread == 3
        await ann.mark("room", 2)
        assert (ann.conversation("room").marker, ann.conversation("room").unread) == (2, 2)
        await eventually(lambda: [f.seq for f in server.frames(Mark)] == [2])
        await ann.send("room", "mine")
        assert ann.conversation("room").unread == 0


async def test_a_reader_that_is_far_behind_still_gets_everything_once(
    server: Any, client_of: Any, eventually: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.say("room", "bob", "first")
        seqs: list[int] = []
        async with asyncio.timeout(5):
            async for message in ann.messages():
                seqs.append(message.seq)
                if message.seq == 2501:
                    break
                if message.seq == 2:
                    server.say("room", "bob", *map(str, range(2499)))
                    await eventually(lambda: ann.conversation("room").last == 2501)
        assert seqs == list(range(2, 2502))


async def test_an_own_send_between_pushes_of_others_is_no_gap(
    take: Any, server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()

        def bob_is_faster(frame: Any) -> None:
            if isinstance(frame, Send):
                # Bob's entry comes first, but its push comes behind ann's ack.
                server.lose_pushes = True
                server.say("room", "bob", "first")
                server.lose_pushes = False
                entry = server.conversations["room"].entries[-1]
                asyncio.get_running_loop().call_soon(
                    lambda: server.push(ConversationId("room"), entry)
                )

        server.before_answer = bob_is_faster
        sent = await ann.send("room", "second")
        assert sent.seq == 3
        messages = await take(ann, 2, own=True)
        assert [m.body for m in messages] == ["first", "second"]
        assert ann.counters.gaps_seen == 0


async def test_what_is_shredded_before_it_was_pulled_is_not_asked_for_again(
    server: Any, client_of: Any, tmp_path: Any
) -> None:
    """The sync was too early to tell; what the copy learnt of the pull it keeps."""
    room = server.create("room", "ann", "bob")
    server.create("other", "ann", "bob")
    server.say("room", "bob", "one", "two")

    def shredded(frame: Any) -> None:
        room.shredded = room.shredded or isinstance(frame, Pull)

    server.before_answer = shredded
    reports: list[TrunklineError] = []
    async with client_of("ann", store=tmp_path / "local.db", report=reports.append) as ann:
        await ann.wait_synced()
        assert [(i.conversation, i.shredded) for i in ann.conversations()] == [
            ("room", True), ("other", False),
        ]  # fmt: skip
        asked = len(server.frames(Pull))
        await ann.open("room")
        assert await ann.history("room") == []
        assert len(server.frames(Pull)) == asked
        assert [error.code for error in reports] == ["conversation_shredded"]
    server.down = True
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        assert ann.conversation("room").shredded


async def test_an_unknown_conversation_is_no_member(server: Any, client_of: Any) -> None:
    async with client_of("ann") as ann:
        with pytest.raises(NotMember):
            await ann.history("nowhere")


async def test_left_messages_and_system_entries_come_to_a_reader_of_entries(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        await ann.add("room", ["eve"])
        kinds = []
        async with asyncio.timeout(5):
            async for message in ann.entries(from_start=True):
                kinds.append(message.kind)
                if len(kinds) == 2:
                    break
    assert kinds == [Kind.CREATED, Kind.JOINED]
