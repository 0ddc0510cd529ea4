"""One session with a database, and what its errors mean."""

import asyncio
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import asyncmy
from asyncmy import errors

from trunkline.adapters.mysql.portions import portions
from trunkline.adapters.mysql.settings import DatabaseSettings, Settings
from trunkline.errors import (
    BatchRefused,
    DataDamaged,
    StorageFull,
    StorageUnavailable,
    TrunklineError,
)
from trunkline.ports.tls import why_refused

Row = tuple[Any, ...]

# Lock wait timeout, deadlock, "record has changed since last read" (MariaDB): tried again.
_CONTENDED: Final = frozenset({1020, 1205, 1213})
_DUPLICATE: Final = 1062
# Duplicate column, duplicate index; no such column or index to drop.
_ALREADY_MADE: Final = frozenset({1060, 1061, 1091})
# Server gone, lost during a query, killed, shut down, idle for too long.
_LOST: Final = frozenset({1053, 1152, 1158, 1159, 1160, 1161, 1927, 2003, 2006, 2013, 2055, 4031})
_FULL: Final = frozenset({1021, 1041, 1114, 3675})
# Wrong key file, no such table, crashed, index or table corrupted, not in the engine.
_DAMAGED: Final = frozenset({1034, 1146, 1194, 1712, 1877, 1932})
_TOO_LARGE: Final = 1153
# Access denied to a database, of a user, or without a password; unknown database; wrong way to
# log in; no right to a table.
_MISTAKEN: Final = frozenset({1044, 1045, 1049, 1142, 1251, 1698, 2059})
_GOES_ON: Final = _CONTENDED | _DAMAGED | _ALREADY_MADE | {_DUPLICATE}
"""The statement was refused; the session is as it was."""


_PORTION_BYTES: Final = 4 << 20
_LEAST_PACKET_BYTES: Final = 1_024
"""What every server takes."""


class Contended(Exception):
    """Others hold what the transaction needs: it was rolled back and is tried again."""


class DuplicateKey(Exception):
    """Another transaction wrote this key first.

    Attributes:
        done: statements that were carried out before, of those that were sent at once.
    """

    done = 0


class AlreadyMade(Exception):
    """A change of a table finds what it would add, or misses what it would drop."""


class Mistaken(StorageUnavailable):
    """The server does not take what the settings say of it: no waiting mends that."""


class Unanswered(StorageUnavailable):
    """There is no answer, and there will be none in this session."""


class SessionLost(Unanswered):
    """The server closed the session: what was not committed is not stored."""


class Connection:
    """One session. It goes on after a duplicate key, contention, damage or a change that was made
    already; after any other error it is not used again.

    Raises `Contended`, `DuplicateKey`, `BatchRefused`, `DataDamaged`, `StorageFull` or
    `StorageUnavailable`; for a change of tables, which is no transaction's, `AlreadyMade`.

    Attributes:
        portion_bytes: how large statements that are sent at once may be together.
    """

    def __init__(self, raw: Any, name: str, answer_seconds: float, packet_bytes: int) -> None:
        """`packet_bytes`: the server's `max_allowed_packet`."""
        self._raw = raw
        self._name = name
        self._answer_seconds = answer_seconds
        self._packet_bytes = packet_bytes
        self.portion_bytes = min(_PORTION_BYTES, packet_bytes // 2)
        self._deadline: asyncio.Timeout | None = None
        self.usable = True
        self.idle_since = 0.0

    def give_up(self) -> None:
        """Whatever waits for an answer in this session has none."""
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def execute(self, sql: str) -> int:
        """Runs a statement; returns the number of rows that it changed."""
        return (await self._run(sql))[0]

    async def rows(self, sql: str) -> Sequence[Row]:
        """Runs a query; returns all its rows."""
        return (await self._run(sql))[1]

    async def rows_of_each(self, statements: Sequence[str]) -> list[Sequence[Row]]:
        """Runs statements, up to the first that fails; the rows of each. In one round trip, or
        few if they are large together.
        """
        found: list[Sequence[Row]] = []
        try:
            for portion in portions(statements, self.portion_bytes):
                await self._run(";".join(portion), found)
        except DuplicateKey as error:
            error.done = len(found)
            raise
        return found

    async def _run(
        self, sql: str, each: list[Sequence[Row]] | None = None
    ) -> tuple[int, Sequence[Row]]:
        if len(sql) >= self._packet_bytes:
            raise BatchRefused(f"{self._name} takes no statement of {len(sql)} bytes.")
        # Cut short, an answer would stay in the socket for whoever asks next.
        usable, self.usable = self.usable, False
        if not usable:
            raise StorageUnavailable("This connection is not used any more.")
        cursor = self._raw.cursor()
        try:
            async with asyncio.timeout(self._answer_seconds) as self._deadline:
                changed = await cursor.execute(sql)
                found = await cursor.fetchall() if cursor.description else ()
                if each is not None:
                    each.append(found)
                    while await cursor.nextset():
                        each.append(await cursor.fetchall() if cursor.description else ())
        except Exception as error:
            self.usable = code_of(error) in _GOES_ON
            raise translated(error, self._name) from error
        finally:
            self._deadline = None
        self.usable = True
        return changed, found

    def close(self) -> None:
        """Drops the socket."""
        self.usable = False
        self._raw.close()


async def connect(
    settings: Settings, database: DatabaseSettings, session: Sequence[str]
) -> Connection:
    """A connection whose session ran the statements `session`; raises `StorageUnavailable`."""
    name = f"The database {database.host}:{database.port}/{database.database}"
    try:
        async with asyncio.timeout(settings.connect_seconds):
            raw = await asyncmy.connect(
                host=database.host, port=database.port, user=settings.user,
                password=settings.password, db=database.database, autocommit=True,
                charset="utf8mb4", ssl=_tls(settings),
            )  # fmt: skip
    except Exception as error:
        raise translated(error, name) from error
    connection = Connection(raw, name, settings.answer_seconds, _LEAST_PACKET_BYTES)
    try:
        ((packet_bytes,),) = await connection.rows("SELECT @@max_allowed_packet")
        connection = Connection(raw, name, settings.answer_seconds, packet_bytes)
        for command in session:
            await connection.execute(command)
    except BaseException:
        connection.close()
        raise
    return connection


@lru_cache(maxsize=16)
def _tls(settings: Settings) -> ssl.SSLContext | None:
    return settings.tls_context()


def code_of(error: BaseException) -> int:
    """The server's number of an error, 0 if it has none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def translated(error: Exception, name: str) -> Exception:
    """The error of the tree, or of this module, for an error of the driver."""
    if isinstance(error, TrunklineError):
        return error
    if isinstance(error, TimeoutError):
        return Unanswered(f"{name} does not answer.")
    code = code_of(error)
    if isinstance(error, (OSError, EOFError)) or code in _LOST:
        # The driver puts an error of its own around that of the socket.
        reason = error if isinstance(error, OSError) else error.__cause__
        why = why_refused(reason) if isinstance(reason, OSError) else error
        what = f"{name} does not answer: {why}."
        wrong = isinstance(reason, ssl.SSLCertVerificationError)
        return Mistaken(what) if wrong else SessionLost(what)
    if not isinstance(error, errors.MySQLError):
        return error
    if code in _CONTENDED:
        return Contended(str(error))
    if code == _DUPLICATE:
        return DuplicateKey(str(error))
    if code in _ALREADY_MADE:
        return AlreadyMade(str(error))
    if code == _TOO_LARGE or isinstance(error, errors.DataError):
        return BatchRefused(f"{name} refuses: {error}.")
    if code in _FULL:
        return StorageFull()
    if code in _DAMAGED:
        return DataDamaged(f"{name}: {error}.")
    kind = Mistaken if code in _MISTAKEN else StorageUnavailable
    return kind(f"{name} refuses: {error}.")
