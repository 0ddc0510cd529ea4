"""What a worker of the hot tier may still write once a shard was taken from under it (I11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from databases import database, look, tell_left

from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql
from trunkline.core.appending import Outcome, Refused
from trunkline.core.ids import shard_hash
from trunkline.errors import ShardMoved, StoreNotMigrated
from trunkline.model import (
    Conversation,
    ConversationId,
    EndpointId,
    MarkerMove,
    OffsetMove,
    Seq,
    UserId,
)
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import (
    check_view,
    name_on_shard_of,
    refusal_of,
    seq_of,
    view,
)

LOW = 5
"""A key of the first shard."""
MOVED, STAYS = name_on_shard_of(LOW), name_on_shard_of(LOW + (1 << 54))
"""Groups of two shards of one database."""
PHONE = EndpointId("phone")
USERS = [UserId(name_on_shard_of(LOW + (shard << 54))) for shard in (2, 3)]
"""Users whose lists stand in two more shards of that database."""


@asynccontextmanager
async def both_groups(settings: Settings, writer: Writer) -> AsyncIterator[MysqlStores]:
    """A worker, and two groups that it has written to."""
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(
            stores.hot, *(writer.create(g, USERS[0], "c", USERS[1:]) for g in (MOVED, STAYS))
        )
        await writer.append(stores.hot, *(writer.message(g, USERS[0], "m") for g in (MOVED, STAYS)))
        yield stores


@asynccontextmanager
async def taken(settings: Settings, name: str) -> AsyncIterator[Database]:
    """The shard of a conversation or user is deleted, as the howto says, and comes back."""
    shard = shard_hash(ConversationId(name))
    async with database(settings) as opened:
        await opened.query(f"DELETE FROM shard WHERE shard = {shard}")
        try:
            yield opened
        finally:
            await migrate_mysql(settings, lambda: b"sentinel")


async def raised(opened: Database, name: str) -> None:
    """Another writer takes the shard over, in the same database."""
    shard = shard_hash(ConversationId(name))
    await opened.query(f"UPDATE shard SET epoch = epoch + 1 WHERE shard = {shard}")


def refused(outcome: Outcome) -> ShardMoved:
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, ShardMoved)
    return outcome.error


async def moves(stores: MysqlStores) -> tuple[list[MarkerMove], list[Conversation]]:
    """Marks both groups read up to the second entry, for a user who has not sent."""
    rows = [(await view(stores.hot, USERS[1], group))[0] for group in (MOVED, STAYS)]
    return [MarkerMove(row.key, USERS[1], Seq(2), row.countable) for row in rows], rows


async def stored(settings: Settings, column: str, table: str, where: str) -> list[object]:
    """What stands there, whoever may show it."""
    text = f"SELECT {column} FROM {table} WHERE {where} ORDER BY {column}"
    async with database(settings) as opened:
        return [value for (value,) in await opened.query(text)]


async def markers(settings: Settings) -> list[object]:
    return await stored(settings, "marker", "member", f"user = '{USERS[1]}'")


def shards_gone(stores: MysqlStores) -> float:
    """What metrics say of it."""
    return sum(r.read() for r in stores.readings() if r.metric == "trunkline_hot_shards_gone")


# --- appends ----------------------------------------------------------------------------


async def test_a_worker_whose_database_lost_a_shard_says_where_to_go_on_and_serves_the_rest(
    settings: Settings, writer: Writer
) -> None:
    """Retryable, however often; what is beside it in a batch is committed and answered so."""
    async with both_groups(settings, writer) as stores:
        async with taken(settings, MOVED):
            for turn in range(3):
                drafts = [writer.message(g, USERS[0], f"t{turn}") for g in (MOVED, STAYS)]
                gone, kept = await writer.append(stores.hot, *drafts)
                error = refused(gone)
                assert (error.code, error.retryable) == ("shard_moved", True)
                assert error.retry_after_seconds
                assert "another worker" in error.detail
                assert seq_of(kept) == 3 + turn
            assert shards_gone(stores) == 1
            with pytest.raises(StoreNotMigrated, match="trunkline migrate"):
                async with open_mysql(settings, SteppedClock()):
                    pass
        back = [writer.message(MOVED, USERS[0], f"back{i}") for i in range(2)]
        assert refusal_of((await writer.append(stores.hot, back[0]))[0]) == "shard_moved"
        assert [seq_of(o) for o in await writer.append(stores.hot, *back)] == [3, 4]
        for group in (MOVED, STAYS):
            await check_view(writer, stores.hot, USERS[0], group)


# --- reads ------------------------------------------------------------------------------


async def test_what_is_left_of_a_shard_that_is_gone_is_not_shown(
    settings: Settings, writer: Writer
) -> None:
    """Rows may stand there for a while, behind those of the new database; or none: nothing is
    answered as if it did not exist.
    """
    async with both_groups(settings, writer) as stores:
        (row, _), _ = [await view(stores.hot, USERS[1], group) for group in (MOVED, STAYS)]
        async with taken(settings, MOVED):
            await look(stores)
            assert shards_gone(stores) == 1
            for reading in (
                stores.hot.views(USERS[1], [ConversationId(STAYS), ConversationId(MOVED)]),
                stores.hot.members(row.key),
                stores.hot.read(row.key, Seq(0), Seq(2)),
                stores.hot.rows([row.key]),
            ):
                with pytest.raises(ShardMoved, match="another worker"):
                    await reading
            await check_view(writer, stores.hot, USERS[1], STAYS)
            assert len(await stores.hot.conversations_of(USERS[1])) == 2
        await look(stores)
        assert shards_gone(stores) == 0
        await check_view(writer, stores.hot, USERS[1], MOVED)
        async with taken(settings, USERS[1]):
            await look(stores)
            for reading in (
                stores.hot.conversations_of(USERS[1]),
                stores.hot.offsets(USERS[1], PHONE),
            ):
                with pytest.raises(ShardMoved):
                    await reading


# --- markers and offsets ------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True], ids=["taken over", "gone"])
async def test_a_marker_in_a_shard_that_moved_is_refused_and_the_rest_is_stored(
    gone: bool, settings: Settings, writer: Writer
) -> None:
    """What is written into rows that were copied away would be lost."""
    async with both_groups(settings, writer) as stores:
        marks, _ = await moves(stores)
        if gone:
            async with taken(settings, MOVED):
                with pytest.raises(ShardMoved, match="another worker"):
                    await stores.hot.record(marks, [])
                assert await markers(settings) == [0, 2]
        else:
            async with database(settings) as opened:
                await raised(opened, MOVED)
            with pytest.raises(ShardMoved):
                await stores.hot.record(marks, [])
            assert await markers(settings) == [0, 2]
            await stores.hot.record(marks, [])
            assert await markers(settings) == [2, 2]


async def test_an_offset_in_a_shard_that_moved_is_refused_and_the_rest_is_stored(
    settings: Settings, writer: Writer
) -> None:
    """The users' shards count, not the conversation's."""
    async with both_groups(settings, writer) as stores:
        _, (row, _) = await moves(stores)
        offsets = [OffsetMove(row.key, user, PHONE, Seq(2)) for user in USERS]

        async with taken(settings, USERS[0]) as opened:
            with pytest.raises(ShardMoved):
                await stores.hot.record([], offsets)
            users = await opened.query("SELECT user FROM endpoint_offset")
            assert users == ((USERS[1].encode(),),)
        with pytest.raises(ShardMoved):
            await stores.hot.record([], offsets)
        await stores.hot.record([], offsets)
        assert await stored(settings, "seq", "endpoint_offset", "TRUE") == [2, 2]


async def test_a_takeover_waits_for_the_record_that_has_read_the_epoch(
    settings: Settings, writer: Writer
) -> None:
    """Behind the raise nothing of the old epoch is written any more."""
    async with both_groups(settings, writer) as stores, database(settings) as opened:
        marks, (row, _) = await moves(stores)
        shard = shard_hash(ConversationId(MOVED))

        async def free() -> bool:
            text = f"SELECT epoch FROM shard WHERE shard = {shard} FOR UPDATE SKIP LOCKED"
            return len(await opened.query(text)) == 1

        held, let_go = asyncio.Event(), asyncio.Event()

        async def hold(connection: object) -> None:
            await connection.rows(  # type: ignore[attr-defined]
                f"SELECT ckey FROM conversation WHERE ckey = {row.key} FOR UPDATE"
            )
            held.set()
            await let_go.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(opened.transaction(hold))
            await held.wait()
            recording = group.create_task(stores.hot.record(marks, []))
            async with asyncio.timeout(10):
                while await free():
                    await asyncio.sleep(0.005)
            raising = group.create_task(raised(opened, MOVED))
            let_go.set()
            await recording
            await raising
        assert await markers(settings) == [2, 2]


# --- users' lists -------------------------------------------------------------------------


async def test_a_list_in_a_shard_that_moved_is_told_by_whoever_holds_it(
    settings: Settings, writer: Writer
) -> None:
    """The outbox keeps the line: told to the old rows, it would be lost with them."""
    group = name_on_shard_of(LOW + (4 << 54))
    async with both_groups(settings, writer) as stores:
        told = f"id = '{group}'"
        async with taken(settings, USERS[0]) as opened:
            await writer.append(stores.hot, writer.create(group, USERS[1], "c", USERS[:1]))
            assert await stored(settings, "user", "user_conversation", told) == [USERS[1].encode()]
            await opened.query("UPDATE outbox SET stored_at = stored_at - INTERVAL 1 HOUR")
            assert await tell_left(stores) == 1
            assert await stored(settings, "user", "user_conversation", told) == [USERS[1].encode()]
        async with open_mysql(settings, SteppedClock()) as holder:
            assert await tell_left(holder) == 1
            assert await stored(settings, "user", "user_conversation", told) == sorted(
                u.encode() for u in USERS
            )
            assert await tell_left(holder) == 0
