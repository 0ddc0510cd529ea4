"""Sends, reconnects and restarts: what is resent, in which order, and when a client gives up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.client import MemoryStore, SqliteStore
from trunkline.client.sending import MOVED_MAX
from trunkline.errors import (
    BodyEmpty,
    ConversationShredded,
    NotAllowed,
    StoreOfAnotherEndpoint,
    TokenExpired,
    TrunklineError,
)
from trunkline.model import UserId
from trunkline.wire.close import Close
from trunkline.wire.frames import Confirm, Hello, Mark, Pull, Send, Sync


async def test_a_send_whose_ack_was_lost_is_resent_and_answered_with_the_first_seq(
    assert_proven: Any, server: Any, client_of: Any, eventually: Any
) -> None:
    server.create("room", "ann", "bob")
    server.swallow_acks = 1
    async with client_of("ann") as ann:
        await ann.wait_synced()
        posted = await ann.post("room", "once")
        await eventually(lambda: server.bodies("room") == ["once"])
        server.cut()
        sent = await posted
        assert (sent.seq, sent.duplicate) == (2, True)
        assert ann.counters.resent == 1
        await ann.open("room")
        assert_proven(ann, server, "room")
    assert server.bodies("room") == ["once"]


async def test_after_a_lost_connection_sends_go_out_again_in_their_order(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")

    def cut_at_the_third(frame: Any) -> None:
        if isinstance(frame, Send) and frame.body == "2":
            server.before_answer = lambda _: None
            server.cut()

    server.before_answer = cut_at_the_third
    async with client_of("ann") as ann:
        posted = [await ann.post("room", str(n)) for n in range(20)]
        for one in posted:
            await one
    assert server.bodies("room") == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    "code", ["rate_limited", "overloaded", "storage_full", "outcome_unknown", "storage_unavailable"]
)
async def test_a_send_refused_for_now_is_sent_again(server: Any, client_of: Any, code: str) -> None:
    server.create("room", "ann", "bob")
    server.refuse_sends = [code]
    async with client_of("ann") as ann:
        sent = await ann.send("room", "hello")
    assert sent.seq == 2
    assert len(server.frames(Send)) == 2


async def test_a_client_goes_to_another_worker_when_a_shard_stays_moved(
    server: Any, client_of: Any
) -> None:
    """A shard that this worker has again is sent to it; one that it lost is not asked for ever."""
    server.create("room", "ann", "bob")
    server.refuse_sends = ["shard_moved"] * 2
    async with client_of("ann") as ann:
        assert (await ann.send("room", "soon")).seq == 2
        assert server.dials == 1
        server.refuse_sends = ["shard_moved"] * (MOVED_MAX + 2)
        assert (await ann.send("room", "elsewhere")).seq == 3
        assert server.dials == 2


async def test_a_send_to_what_was_shredded_is_refused_once_and_for_all(
    server: Any, client_of: Any
) -> None:
    """A client that is connected meanwhile learns of it by that."""
    room = server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        assert not ann.conversation("room").shredded
        room.shredded = True
        with pytest.raises(ConversationShredded):
            await ann.send("room", "hello")
        assert ann.conversation("room").shredded
        await ann.wait_sent()
    assert len(server.frames(Send)) == 1


async def test_with_a_window_of_one_a_send_refused_for_now_keeps_its_place(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    server.refuse_sends = ["", "overloaded", "overloaded"]
    async with client_of("ann", window=1) as ann:
        for n in range(5):
            await ann.post("room", str(n))
        await ann.wait_sent()
    assert server.bodies("room") == ["0", "1", "2", "3", "4"]


async def test_a_send_refused_for_good_raises_and_the_next_one_goes_on(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    server.refuse_sends = ["body_empty"]
    async with client_of("ann") as ann:
        with pytest.raises(BodyEmpty):
            await ann.send("room", "")
        assert (await ann.send("room", "hello")).seq == 2


async def test_a_client_that_only_sends_is_pushed_nothing_and_pulls_nothing(
    server: Any, client_of: Any
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann", push=False) as ann:
        assert (await ann.send("room", "hello")).seq == 2
        with pytest.raises(NotAllowed):
            await ann.wait_synced()
    assert [hello.push for hello in server.frames(Hello)] == [False]
    assert server.frames(Sync) == server.frames(Pull) == server.frames(Confirm) == []


async def test_an_expired_token_is_replaced_by_the_callback(server: Any, client_of: Any) -> None:
    server.create("room", "ann", "bob")
    server.tokens = {"new"}
    tokens = iter(["old", "new"])

    async def token() -> str:
        return next(tokens)

    async with client_of("ann", token=token) as ann:
        assert (await ann.send("room", "hello")).seq == 2


async def test_an_expired_token_without_a_callback_fails_every_wait(
    take: Any, server: Any, client_of: Any
) -> None:
    server.tokens = set()
    async with client_of("ann") as ann:
        with pytest.raises(TokenExpired):
            await ann.send("room", "hello")
        with pytest.raises(TokenExpired):
            await ann.wait_synced()
        with pytest.raises(TokenExpired):
            await take(ann, 1)


@pytest.mark.parametrize("code", [1006, 1001, 1000, Close.SHUTTING_DOWN, Close.SLOW_READER])
async def test_the_client_comes_back_after_a_close_that_allows_it(
    take: Any, server: Any, client_of: Any, code: int
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.cut(code)
        server.say("room", "bob", "missed")
        assert [m.body for m in await take(ann, 1)] == ["missed"]
        assert ann.counters.gaps_seen == 0


@pytest.mark.parametrize("code", [Close.REPLACED, Close.UNAUTHENTICATED, Close.BAD_FRAME])
async def test_the_client_does_not_come_back_after_a_close_that_forbids_it(
    take: Any, server: Any, client_of: Any, code: int
) -> None:
    server.create("room", "ann", "bob")
    async with client_of("ann") as ann:
        await ann.wait_synced()
        server.cut(code)
        with pytest.raises(TrunklineError):
            await take(ann, 1)
        assert server.dials == 1


async def test_a_server_that_is_down_is_dialled_until_it_is_up(
    server: Any, client_of: Any, eventually: Any
) -> None:
    server.create("room", "ann", "bob")
    server.down = True
    async with client_of("ann") as ann:
        posted = await ann.post("room", "hello")
        await eventually(lambda: server.dials >= 3)
        server.down = False
        assert (await posted).seq == 2


async def test_a_cancelled_send_is_not_taken_back(server: Any, client_of: Any) -> None:
    server.create("room", "ann", "bob")
    server.down = True
    async with client_of("ann") as ann:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ann.send("room", "hello")
        server.down = False
        await ann.wait_sent()
    assert server.bodies("room") == ["hello"]


async def test_a_cancelled_client_closes_its_store(take: Any, server: Any, client_of: Any) -> None:
    server.create("room", "ann", "bob")
    store = MemoryStore()

    async def serve() -> None:
        async with client_of("ann", store=store) as ann:
            await take(ann, 1)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await serve()
    handle = await store.open(UserId("ann"), client_of("ann").endpoint)
    await handle.close()
    assert server.sockets == []


async def test_one_store_takes_an_endpoint_once_at_a_time(client_of: Any) -> None:
    store = MemoryStore()
    async with client_of("ann", store=store):
        with pytest.raises(StoreOfAnotherEndpoint):
            async with client_of("ann", store=store):
                pass


async def test_a_posted_message_survives_a_restart_in_the_sqlite_store(
    server: Any, client_of: Any, tmp_path: Any
) -> None:
    server.create("room", "ann", "bob")
    server.down = True
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        for n in range(3):
            await ann.post("room", str(n))
    server.down = False
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        await ann.wait_sent()
    assert server.bodies("room") == ["0", "1", "2"]
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        await ann.wait_synced()
        await ann.wait_sent()
    assert len(server.frames(Send)) == 3


async def test_endpoints_that_share_a_sqlite_file_are_each_complete_after_a_restart(
    assert_proven: Any, server: Any, client_of: Any, tmp_path: Any
) -> None:
    users = [f"user {n}" for n in range(8)]
    server.create("room", *users)
    server.say("room", "user 0", *map(str, range(300)))
    async with SqliteStore(tmp_path / "local.db") as store, asyncio.TaskGroup() as tasks:

        async def run(user: str) -> None:
            async with client_of(user, store=store) as client:
                await client.wait_synced()

        for user in users:
            tasks.create_task(run(user))
    server.down = True
    async with SqliteStore(tmp_path / "local.db") as store:
        for user in users:
            async with client_of(user, store=store) as client:
                assert_proven(client, server, "room")
                bodies = [m.body for m in await client.history("room")]
                assert bodies[1:] == [str(n) for n in range(300)]


async def test_a_mark_that_the_server_was_not_told_is_told_by_the_next_run(
    server: Any, client_of: Any, eventually: Any, tmp_path: Any
) -> None:
    server.create("room", "ann", "bob")
    server.say("room", "bob", "one", "two")
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        await ann.wait_synced()
    server.down = True
    async with client_of("ann", store=tmp_path / "local.db") as ann:
        await ann.mark("room", 2)
    server.down = False
    async with client_of("ann", store=tmp_path / "local.db"):
        await eventually(lambda: [f.seq for f in server.frames(Mark)] == [2])


async def test_an_error_of_the_application_leaves_the_client_as_it_is(client_of: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client_of("ann"):
            raise ZeroDivisionError
