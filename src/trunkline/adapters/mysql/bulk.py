"""Statements over many rows: each no larger than a server takes, and finds by its index."""

from collections.abc import Iterable, Sequence
from typing import Final

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.literals import Value
from trunkline.adapters.mysql.portions import portions
from trunkline.adapters.mysql.sql import statement

_LISTED: Final = 1_000
"""For a longer list a server may read the whole table (MySQL: range_optimizer_max_mem_size)."""
_LIST_BYTES: Final = 512 << 10


def listed(name: str, place: str, literals: Iterable[str], **values: Value) -> list[str]:
    """The statements `name` with these literals as their list `place`: one, if they are few."""
    return [
        statement(name, lists={place: ",".join(part)}, **values)
        for part in portions(tuple(literals), _LIST_BYTES, _LISTED)
    ]


async def found(
    connection: Connection, name: str, place: str, literals: Iterable[str]
) -> list[Row]:
    """The rows that `listed` finds."""
    answers = [await connection.rows(text) for text in listed(name, place, literals)]
    return [row for answer in answers for row in answer]


def inserts(connection: Connection, name: str, rows: Sequence[str]) -> list[str]:
    """The statements that write rows: one, unless it would be larger than the server takes."""
    return [
        statement(name, lists={"rows": ",".join(part)})
        for part in portions(rows, connection.portion_bytes)
    ]


async def insert(connection: Connection, name: str, rows: Sequence[str]) -> None:
    """Writes rows, if there are any."""
    for text in inserts(connection, name, rows):
        await connection.execute(text)
