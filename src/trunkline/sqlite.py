"""SQLite for server and SDK: the library that comes along, files that are private, kinds of errors.

The library is apsw's own, not the machine's. SQLite 3.7.0 to 3.51.2 may lose committed pages when
one connection resets a write-ahead log while another copies it (https://www.sqlite.org/wal.html,
"The WAL-Reset Bug"): a library with that fault opens nothing here.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any, Final, Protocol, cast

import apsw

from trunkline.errors import SqliteUnsafe

_IN_MEMORY: Final = Path(":memory:")
PRIVATE_MODE: Final = 0o600
_FAULTY: Final = ((3, 7, 0), (3, 51, 3))
"""The first version with the fault, and the first without."""
_STATEMENTS_KEPT: Final = 64
_PRIMARY: Final = 0xFF

Error = apsw.Error
Row = tuple[Any, ...]


class Rows(Protocol):
    """The rows of a statement, as they are asked for."""

    def __iter__(self) -> Iterator[Row]: ...
    def fetchall(self) -> list[Row]:
        """All that are left."""
        ...


class Connection(Protocol):
    """What is used of a connection. It is in autocommit; one thread at a time may use it."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: Sequence[object] = (), /) -> Rows:
        """Runs statements, all of them if they give no rows; raises `Error`."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[object]], /) -> Rows:
        """Runs a statement once for each row; raises `Error`."""
        ...

    def changes(self) -> int:
        """How many rows the last statement changed."""
        ...

    def set_busy_timeout(self, milliseconds: int, /) -> None:
        """How long locks of others are waited for."""
        ...

    def set_wal_hook(self, told: Callable[["Connection", str, int], int], /) -> None:
        """`told` is called after each commit with the log's length in pages; it returns 0."""
        ...

    def close(self) -> None:
        """Ends it; raises `Error`."""
        ...


class Fault(Enum):
    """What an error of SQLite or of the operating system means for who asked."""

    FULL = "full"
    BUSY = "busy"
    DAMAGED = "damaged"
    OTHER = "other"


_FAULTS: Final = {
    apsw.SQLITE_FULL: Fault.FULL,
    apsw.SQLITE_BUSY: Fault.BUSY,
    apsw.SQLITE_LOCKED: Fault.BUSY,
    apsw.SQLITE_PROTOCOL: Fault.BUSY,
    apsw.SQLITE_CORRUPT: Fault.DAMAGED,
    apsw.SQLITE_NOTADB: Fault.DAMAGED,
}


def library_version() -> str:
    """The version of the SQLite that is used."""
    return apsw.sqlite_lib_version()


def check_library(version: str) -> None:
    """Raises `SqliteUnsafe` if this version of SQLite has the fault."""
    first, fixed = _FAULTY
    if first <= tuple(int(part) for part in version.split(".")) < fixed:
        raise SqliteUnsafe(
            f"SQLite {version} may lose committed pages of a write-ahead log: install an apsw "
            f"whose library is at least {'.'.join(map(str, fixed))}."
        )


def fault_of(error: Exception) -> Fault:
    """What an error means. `BUSY`: nothing was changed. Text that is no UTF-8 is damage."""
    if isinstance(error, UnicodeDecodeError):
        return Fault.DAMAGED
    if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
        return Fault.FULL
    if isinstance(error, Error):
        return _FAULTS.get(getattr(error, "result", 0) & _PRIMARY, Fault.OTHER)
    return Fault.OTHER


def connect(path: Path, *, busy_seconds: float, owner: bool = True) -> Connection:
    """A connection to a file, which is made, 0600, if it does not exist.

    `owner`: whether it may copy the write-ahead log into the file: by itself or when asked, or
    when it is closed as the last one, and so alone. Raises `SqliteUnsafe`, `Error`, `OSError`.
    """
    check_library(library_version())
    if path != _IN_MEMORY:
        make_private(path)
    connection = apsw.Connection(os.fspath(path), statementcachesize=_STATEMENTS_KEPT)
    try:
        connection.set_busy_timeout(int(busy_seconds * 1_000))
        if not owner:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    except BaseException:
        connection.close()
        raise
    return cast(Connection, connection)


def connect_immutable(path: Path) -> Connection:
    """A connection that reads a file as it stands and changes nothing; its log is not looked at."""
    check_library(library_version())
    connection = apsw.Connection(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        statementcachesize=_STATEMENTS_KEPT,
    )
    return cast(Connection, connection)


def make_private(path: Path) -> None:
    """Makes the file 0600, with its log and index: SQLite makes those later as it finds the file.

    One that is another user's cannot be changed, and is opened or refused as it is.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE))
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError, PermissionError):
            path.with_name(path.name + suffix).chmod(PRIVATE_MODE)
