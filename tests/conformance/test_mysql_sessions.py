"""The sessions of a database's pools, when the server drops them; what they are
sent at once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from databases import database

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import open_mysql
from trunkline.errors import BatchRefused
from trunkline.model import UserId
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import refusal_of, seq_of
from trunkline.testing.proxy import Proxy


async def test_a_restart_of_the_database_fails_no_question_that_comes_after_it(
    settings: Settings,
) -> None:
    """A pool full of dead sessions is told by the first of them."""

    async def nothing(connection: Connection) -> int:
        return (await connection.rows("SELECT SLEEP(0.05)"))[0][0]

    place = settings.databases[0]
    async with Proxy(place.host, place.port) as proxy:
        cut = msgspec.structs.replace(place, port=proxy.port)
        through = msgspec.structs.replace(settings, databases=(cut, *settings.databases[1:]))
        async with database(through) as opened:
            await asyncio.gather(*(opened.query("SELECT SLEEP(0.05)") for _ in range(8)))
            await asyncio.gather(*(opened.transaction(nothing) for _ in range(6)))
            proxy.reset_all()
            for _ in range(8):
                assert await opened.query("SELECT 1") == ((1,),)
                assert await opened.transaction(nothing) == 0


async def test_adds_that_name_more_than_a_packet_holds_fail_nobody_elses_send(
    settings: Settings, writer: Writer
) -> None:
    """One client's frames are all within their limits; the server would end the session."""
    async with database(settings) as opened:
        if await opened.query("SELECT @@max_allowed_packet") > ((16 << 20,),):
            pytest.skip("this server takes larger packets")
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(stores.hot, writer.create("group", "ann", "c"))
        users = [f"{number:064d}" for number in range(1_000)]
        adds = [writer.join("group", "eve", f"add {number}", users) for number in range(110)]
        for number, draft in enumerate(adds):
            named = tuple(UserId(f"{number:04d}{user[4:]}") for user in draft.users)
            adds[number] = msgspec.structs.replace(draft, users=named)
        outcomes = await writer.append(stores.hot, *adds, writer.message("group", "ann", "m"))
        assert seq_of(outcomes[-1]) == 2
        assert {refusal_of(outcome) for outcome in outcomes[:-1]} == {"not_member"}


async def test_a_statement_that_no_server_takes_is_refused_and_the_session_goes_on(
    settings: Settings,
) -> None:
    async with database(settings) as opened:
        ((most,),) = await opened.query("SELECT @@max_allowed_packet")
        with pytest.raises(BatchRefused):
            await opened.query(f"SELECT '{'x' * most}'")
        assert await opened.query("SELECT 1") == ((1,),)
