"""Opens SQLite files with the settings that durability needs, and translates their errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trunkline import sqlite
from trunkline.errors import DataDamaged, StorageFull, StorageUnavailable, TrunklineError
from trunkline.sqlite import Connection, Fault

PAGE_BYTES: Final = 8192
BUSY_SECONDS: Final = 10.0


def connect(
    path: Path,
    *,
    cache_bytes: int = 8 << 20,
    owner: bool = True,
    checkpoint_pages: int = 0,
    log_bytes: int = -1,
    busy_seconds: float = BUSY_SECONDS,
    query_only: bool = False,
) -> Connection:
    """A connection in autocommit, WAL, synced in full at every commit.

    A file that does not exist is made. The connection may be used by one thread at a time.

    Args:
        owner: whether this is the connection that copies the file's write-ahead log.
        checkpoint_pages: it does so by itself after a commit that makes the log so long; 0: never.
        log_bytes: a log that was longer is cut to this once it starts over; -1: it stays.
    """
    with translated(path.name):
        connection = sqlite.connect(path, busy_seconds=busy_seconds, owner=owner)
        try:
            for pragma in (
                f"page_size={PAGE_BYTES}",
                "journal_mode=WAL",
                "synchronous=FULL",
                "secure_delete=FAST",
                "cell_size_check=ON",
                f"cache_size=-{cache_bytes >> 10}",
                f"wal_autocheckpoint={checkpoint_pages}",
                f"journal_size_limit={log_bytes}",
                f"query_only={'ON' if query_only else 'OFF'}",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite.Error:
            connection.close()
            raise
    return connection


def translate(error: Exception, file: str) -> TrunklineError:
    """The error of the tree that an SQLite or operating system error stands for."""
    if isinstance(error, TrunklineError):
        return error
    match sqlite.fault_of(error):
        case Fault.DAMAGED:
            return DataDamaged(f"{file} is damaged: {error}.")
        case Fault.FULL:
            return StorageFull()
        case Fault.BUSY:
            return StorageUnavailable(f"Another process holds a lock on {file}: {error}.")
        case Fault.OTHER:
            return StorageUnavailable(f"{file} does not answer: {error}.")


@contextmanager
def translated(file: str) -> Iterator[None]:
    """Turns SQLite's and the operating system's errors into those of the tree."""
    try:
        yield
    except (sqlite.Error, OSError, UnicodeDecodeError) as error:
        raise translate(error, file) from error


def checkpoint(connection: Connection, mode: str) -> bool:
    """Copies the WAL into the database (`PASSIVE` or `TRUNCATE`); whether all of it was.

    Waits as long for readers as the connection waits for locks.
    """
    ((busy, frames, copied),) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    return not busy and frames == copied


def log_file_bytes(path: Path) -> int:
    """The size of the write-ahead log of a database file."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0
