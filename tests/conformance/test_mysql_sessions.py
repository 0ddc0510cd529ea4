"""The sessions of a database's pools, when the server drops them or does not answer."""

from __future__ import annotations

import asyncio

import msgspec
from databases import database

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.settings import Settings
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
