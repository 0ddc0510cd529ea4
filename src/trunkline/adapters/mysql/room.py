"""Whether a database server waits for room on its disk.

MariaDB and MySQL do not refuse what finds no room in the binary log: the commit waits, all others
behind it, for as long as it takes. Only what its session is busy with tells so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import StorageFull, TrunklineError

_log = structlog.get_logger("trunkline.mysql")
_LATE_SECONDS: Final = 2.0
"""A transaction that takes longer may be one that waits for room."""


class Room:
    """What one database's transactions wait for.

    Attributes:
        is_full: whether the server waited for room when it was looked at last.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: dict[Connection, float] = {}
        self.is_full = False

    def begin(self, connection: Connection) -> None:
        """A transaction begins in this session; raises `StorageFull` if it could not end."""
        self.check()
        self._since[connection] = asyncio.get_running_loop().time()

    def end(self, connection: Connection) -> None:
        """It has ended."""
        self._since.pop(connection, None)

    def check(self) -> None:
        """Raises `StorageFull` while the server waits for room."""
        if self.is_full:
            raise StorageFull(f"The database {self._name} has no room left on its disk.")

    async def look(self, query: Callable[[str], Awaitable[Sequence[Row]]]) -> None:
        """Asks what the server's sessions wait for, if transactions are late or it was room.

        If it is, those that are late are given up: the outcome of a commit is unknown then.
        """
        before = asyncio.get_running_loop().time() - _LATE_SECONDS
        if not self.is_full and all(since > before for since in self._since.values()):
            return
        try:
            is_full = bool(await query(statement("sessions_without_room")))
        except TrunklineError:
            return  # it does not answer: nothing is known of its disk
        if is_full != self.is_full:
            _log.warning("database_full" if is_full else "database_has_room", database=self._name)
        self.is_full = is_full
        if is_full:
            for connection, since in self._since.items():
                if since <= before:
                    connection.give_up()
