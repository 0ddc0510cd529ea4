"""The journal file: one row a commit, one sync; rows go once the tables hold them."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, Self

from trunkline import sqlite
from trunkline.adapters.sqlite.database import PAGE_BYTES, checkpoint, connect, translated
from trunkline.adapters.sqlite.records import Commit, pack, unpack
from trunkline.adapters.sqlite.sql import schema, statement
from trunkline.errors import DataDamaged, StorageUnavailable

_FRAME_BYTES: Final = PAGE_BYTES + 24
_ROOM_BYTES: Final = 1 << 20
_COMMIT_BUSY_SECONDS: Final = 0.5
"""Nobody else writes here: who holds a lock all the same is waited for briefly, by all senders."""


class Journal:
    """The blocking side of the journal; each instance is used by one thread at a time.

    One instance commits, and copies the write-ahead log into the file; `reader` makes others.
    """

    def __init__(self, path: Path, log_bytes: int) -> None:
        """Opens the file; one that does not exist is made. `log_bytes`: what its log shrinks to."""
        self._body_bytes = 0
        self._open(path, owner=True, log_bytes=log_bytes)
        try:
            with translated(self._file):
                self._connection.execute(schema("journal"))
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def reader(cls, path: Path) -> Self:
        """A journal to read, beside the process that commits."""
        journal = cls.__new__(cls)
        journal._open(path, owner=False)
        return journal

    def _open(self, path: Path, *, owner: bool, log_bytes: int = -1) -> None:
        self._path = path
        self._file = path.name
        self._log_bound = log_bytes
        self._insert = statement("journal_insert")
        self._pages = 0
        self._connection = connect(
            path, owner=owner, log_bytes=log_bytes, busy_seconds=_COMMIT_BUSY_SECONDS
        )
        self._connection.set_wal_hook(self._count_pages)

    def _count_pages(self, _: sqlite.Connection, __: str, pages: int) -> int:
        self._pages = pages
        return 0

    @property
    def log_bytes(self) -> int:
        """How long the write-ahead log is, as far as it is not copied or not in full."""
        return self._pages * _FRAME_BYTES

    def append(self, journal_id: int, commit: Commit, floor: int) -> int:
        """Commits a row, and with it drops the rows up to `floor`; returns the body's bytes.

        Raises what SQLite raises: the caller decides what the outcome means.
        """
        body = pack(journal_id, commit)
        self._body_bytes = len(body)
        self._connection.execute(
            self._insert, (journal_id, commit.weight(), commit.time_ms, floor, body)
        )
        return len(body)

    def settle(self, journal_id: int) -> int | None:
        """After a commit of unknown outcome: its body's bytes if it is there, and durable.

        The file is opened anew and all of its log copied into it: pages whose sync failed may
        never reach the disk from where they are, and frames that no index names would come back
        after a crash. Raises `StorageUnavailable`, `StorageFull` while that is not possible.
        """
        with translated(self._file):
            self._connection.close()
        self._open(self._path, owner=True, log_bytes=self._log_bound)
        if not self.empty_log():
            raise StorageUnavailable(f"Somebody reads {self._file}, so that it cannot be settled.")
        with translated(self._file):
            rows = self._connection.execute(
                statement("journal_after"), (journal_id - 1, journal_id)
            ).fetchall()
        return len(rows[0][3]) if rows else None

    def reserve(self) -> None:
        """Raises `StorageFull` if the disk has no room for a commit like the last, or 1 MiB."""
        with translated(self._file), TemporaryFile(dir=self._path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, max(_ROOM_BYTES, 2 * self._body_bytes))

    def check(self, watermark: int) -> int:
        """The id of the last commit; raises `DataDamaged` if commits are missing.

        `watermark`: the tables hold everything up to there.
        """
        with translated(self._file):
            ((first, last, count),) = self._connection.execute(
                statement("journal_range"), (watermark,)
            ).fetchall()
            if not count:
                return watermark
        if first != watermark + 1 or last - first + 1 != count:
            raise DataDamaged(
                f"{self._file} lacks commits between {watermark} and {last}: "
                f"{last - watermark - count} of them."
            )
        return int(last)

    def first(self) -> int:
        """The id of the oldest row that is there, or 1."""
        with translated(self._file):
            ((first,),) = self._connection.execute(statement("journal_first")).fetchall()
        return int(first)

    def after(self, journal_id: int, up_to_inclusive: int) -> Iterator[tuple[int, Commit, int]]:
        """Commits of a range in order, as (id, commit, body bytes).

        Reads in small steps, so that no long read keeps the WAL from starting over.
        Raises `DataDamaged` for a row that is missing or not what was written.
        """
        while journal_id < up_to_inclusive:
            with translated(self._file):
                rows = self._connection.execute(
                    statement("journal_after"), (journal_id, up_to_inclusive)
                ).fetchall()
            for found_id, entries, _, body in rows:
                if found_id != journal_id + 1:
                    break
                commit = unpack(found_id, body)
                if commit.weight() != entries:
                    raise DataDamaged(f"{self._file}: row {found_id} does not count its entries.")
                yield found_id, commit, len(body)
                journal_id = found_id
            else:
                if rows:
                    continue
            raise DataDamaged(f"{self._file} lacks commit {journal_id + 1}.")

    def delete(self, up_to_inclusive: int) -> bool:
        """Drops some rows of the range in one small transaction; whether any was there."""
        with translated(self._file):
            self._connection.execute(statement("journal_delete"), (up_to_inclusive,))
            return self._connection.changes() > 0

    def checkpoint(self) -> bool:
        """Copies the WAL into the file, as far as no reader is in the way; whether all of it.

        The next commit then starts it over.
        """
        with translated(self._file):
            return self._started_over(checkpoint(self._connection, "PASSIVE"))

    def empty_log(self) -> bool:
        """Copies all of the WAL and gives its disk space back; not if a reader is in the way."""
        with translated(self._file):
            return self._started_over(checkpoint(self._connection, "TRUNCATE"))

    def _started_over(self, copied: bool) -> bool:
        if copied:
            self._pages = 0
        return copied

    def shrink(self) -> None:
        """Gives the disk space of dropped rows back and empties the WAL."""
        with translated(self._file):
            self._connection.execute("VACUUM")
        self.empty_log()

    def limit_pages(self, pages: int) -> None:
        """Bounds the file's size in pages, as a full disk would."""
        self._connection.execute(f"PRAGMA max_page_count={pages:d}").fetchall()

    def close(self) -> None:
        """Closes the file."""
        try:
            self._connection.close()
        except sqlite.Error as error:
            raise DataDamaged(f"{self._file} does not close: {error}.") from error
