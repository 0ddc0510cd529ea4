"""Another store under the same address: nothing of the one before is shown, sent or lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from trunkline.client import LocalStore, MemoryStore, Message, SqliteStore
from trunkline.errors import StoreReplaced, TrunklineError
from trunkline.model import StoreLife
from trunkline.wire.frames import Pull

ONE = StoreLife("a" * 32, 1, "1" * 16, made_ms=1)
OLD_OTHER = StoreLife("b" * 32, 1, "2" * 16, made_ms=1)
YOUNG_OTHER = StoreLife("c" * 32, 1, "3" * 16, made_ms=2_000_000)


@pytest_asyncio.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStore]:
    made: LocalStore = MemoryStore()
    if request.param == "file":
        made = SqliteStore(tmp_path / "local.db")
    yield made
    await made.close()


async def bodies(client: Any, conversation: str) -> list[str]:
    return [m.body for m in await client.history(conversation)][1:]


async def test_copies_of_another_store_are_set_apart_and_come_back_with_it(
    assert_proven: Any, server: Any, client_of: Any, store: LocalStore
) -> None:
    reports: list[TrunklineError] = []
    server.life = ONE
    server.create("room", "ann", "bob")
    server.say("room", "bob", "in one")
    of_one = dict(server.conversations), dict(server.offsets)
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        assert await ann.set_apart() == []
    of_one = dict(server.conversations), dict(server.offsets)
    server.replace_store(OLD_OTHER)
    server.create("room", "bob", "ann")
    server.say("room", "bob", "in the other", "again")
    async with client_of("ann", store=store, report=reports.append) as ann:
        await ann.wait_synced()
        assert await bodies(ann, "room") == ["in the other", "again"]
        assert_proven(ann, server, "room")
        (apart,) = await ann.set_apart()
        assert (apart.store, apart.conversation, apart.last) == (ONE.id, "room", 2)
        assert [m.body for m in await ann.read_apart(apart)][1:] == ["in one"]
        assert [type(error) for error in reports] == [StoreReplaced]
        assert ann.counters.stores_replaced == 1
    server.replace_store(ONE)
    server.conversations, server.offsets = of_one
    server.say("room", "bob", "news")
    before = len(server.frames(Pull))
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        assert await bodies(ann, "room") == ["in one", "news"]
        assert [r.after for f in server.frames(Pull)[before:] for r in f.ranges] == [2]
        assert [a.store for a in await ann.set_apart()] == [OLD_OTHER.id]
        await ann.forget_apart(await ann.set_apart())
        assert await ann.set_apart() == []


async def test_the_same_store_at_every_start_is_met_without_a_word(
    server: Any, client_of: Any, store: LocalStore
) -> None:
    reports: list[TrunklineError] = []
    server.create("room", "ann", "bob")
    for life in (None, ONE, ONE, None, ONE):  # a server of before says nothing
        server.life = life
        async with client_of("ann", store=store, report=reports.append) as ann:
            await ann.wait_synced()
            assert ann.conversation("room").last == 1
            assert await ann.set_apart() == []
    assert reports == []


async def test_unsent_messages_wait_for_the_store_that_they_were_written_for(
    server: Any, client_of: Any, store: LocalStore, eventually: Any
) -> None:
    server.life = ONE
    server.create("room", "ann", "bob")
    of_one = dict(server.conversations)
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        server.down = True
        server.cut()
        posted = await ann.post("room", "for one")
        server.replace_store(OLD_OTHER)
        server.create("room", "ann", "bob")
        server.down = False
        with pytest.raises(StoreReplaced):
            await asyncio.wait_for(posted, 5)
        await ann.wait_synced()
        await ann.send("room", "for the other")
    assert server.bodies("room") == ["for the other"]
    server.replace_store(ONE)
    server.conversations = of_one
    async with client_of("ann", store=store) as ann:
        await ann.wait_synced()
        await asyncio.wait_for(ann.wait_sent(), 5)
    assert server.bodies("room") == ["for one"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [(YOUNG_OTHER, ["while away", "after"]), (OLD_OTHER, ["after"])],
)
async def test_a_reader_goes_on_with_all_of_a_store_that_was_made_since(
    server: Any, client_of: Any, eventually: Any, other: StoreLife, expected: list[str]
) -> None:
    """What an older store holds is its past, as for any new endpoint."""
    server.life = ONE
    server.create("room", "bot", "bob")
    server.say("room", "bob", "0", "1", "2", "3")
    async with client_of("bot") as bot:
        await bot.wait_synced()
        read: list[Message] = []

        async def reading() -> None:
            async for message in bot.messages():
                read.append(message)  # noqa: PERF401 - each as it comes

        task = asyncio.create_task(reading())
        server.say("room", "bob", "before")
        await eventually(lambda: len(read) == 1)
        server.down = True
        server.cut()
        server.replace_store(other)
        server.create("room", "bob", "bot")
        server.say("room", "bob", "while away")
        server.down = False
        await eventually(lambda: bot.counters.stores_replaced == 1)
        await bot.wait_synced()
        server.say("room", "bob", "after")
        await eventually(lambda: [m.body for m in read][-1:] == ["after"])
        assert [m.body for m in read] == ["before", *expected]
        task.cancel()
