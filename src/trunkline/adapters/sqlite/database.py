"""Opens SQLite files with the settings that durability needs, and translates their errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Final

from trunkline.errors import DataDamaged, StorageFull, StorageUnavailable, TrunklineError

PAGE_BYTES: Final = 8192
_BUSY_SECONDS: Final = 10.0
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def connect(
    path: Path,
    *,
    cache_bytes: int = 8 << 20,
    autocheckpoint_pages: int = 0,
    query_only: bool = False,
) -> sqlite3.Connection:
    """A connection in autocommit, WAL, synced in full at every commit.

    A file that does not exist is made. The connection may be used by one thread at a time.
    """
    with translated(path.name):
        connection = sqlite3.connect(
            path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            for pragma in (
                f"page_size={PAGE_BYTES}",
                "journal_mode=WAL",
                "synchronous=FULL",
                "secure_delete=FAST",
                "cell_size_check=ON",
                f"cache_size=-{cache_bytes >> 10}",
                f"wal_autocheckpoint={autocheckpoint_pages}",
                f"query_only={'ON' if query_only else 'OFF'}",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def translate(error: Exception, file: str) -> TrunklineError:
    """The error of the tree that an SQLite or operating system error stands for."""
    if isinstance(error, TrunklineError):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    # An operational error without a code is the module's own: text that is no UTF-8.
    undecodable = code is None and isinstance(error, sqlite3.OperationalError)
    if undecodable or (code is not None and code & 0xFF in _DAMAGE):
        return DataDamaged(f"{file} is damaged: {error}.")
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == ENOSPC):
        return StorageFull()
    return StorageUnavailable(f"{file} does not answer: {error}.")


@contextmanager
def translated(file: str) -> Iterator[None]:
    """Turns SQLite's and the operating system's errors into those of the tree."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(error, file) from error


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Copies the WAL into the database (`PASSIVE` or `TRUNCATE`); whether all of it was."""
    busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return not busy and frames == copied
