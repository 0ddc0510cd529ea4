"""What all workers must agree on: of a deployment in its first database, of each in itself."""

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.sql import statement


async def agreed(database: Database, name: str) -> bytes | None:
    """What was agreed on, or None."""
    found = await database.query(statement("deployment", key=name))
    return bytes(found[0][0]) if found else None


async def agree(database: Database, name: str, value: bytes) -> None:
    """Agrees on a value, unless there is one."""

    async def work(connection: Connection) -> None:
        await connection.execute(statement("deployment_put", key=name, value=value))

    await database.transaction(work)
