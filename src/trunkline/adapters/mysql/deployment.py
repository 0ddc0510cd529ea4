"""What all workers must agree on: of a deployment in its first database, of each in itself."""

from typing import Final

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.sql import statement

SENTINEL: Final = "sentinel"
"""What the current KEK sealed; in the first database."""
AGREED_KEK: Final = "least_kek"
"""Id, in digits, of the oldest KEK that may wrap a new conversation; in each database."""


async def agreed(database: Database, name: str) -> bytes | None:
    """What was agreed on, or None."""
    found = await database.query(statement("deployment", key=name))
    return bytes(found[0][0]) if found else None


async def agree(database: Database, name: str, value: bytes) -> None:
    """Agrees on a value, unless there is one."""

    async def work(connection: Connection) -> None:
        await connection.execute(statement("deployment_put", key=name, value=value))

    await database.transaction(work)


async def locked(connection: Connection, name: str) -> bytes | None:
    """What was agreed on, or None; nobody else changes or shares it until the transaction ends."""
    found = await connection.rows(statement("deployment_locked", key=name))
    return bytes(found[0][0]) if found else None


async def put(connection: Connection, name: str, value: bytes) -> None:
    """Agrees on another value, which `locked` has looked at."""
    await connection.execute(statement("deployment_set", key=name, value=value))
