"""Keeps endpoints in one SQLite file: runs of entries a row, one commit for all who wait.

Every message stands in it as it was read: the files are their owner's alone (0600).

Durability: WAL with `synchronous=FULL`. What `flush` returned for survives a power cut, so
that an endpoint never confirms what a crash could take back. Commits are shared: while one
is written, whatever the file's endpoints flush meanwhile gathers for the next.

All of SQLite happens on one thread of the store; the loop only hands over changes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar

from trunkline import sqlite
from trunkline.client.runs import (
    RUN_ENTRIES,
    TAIL_ROWS,
    RunPacker,
    pack_copy,
    pack_met,
    unpack_copy,
    unpack_met,
)
from trunkline.client.store import Apart, Changes, Copy, EndpointStore, Loaded, Outgoing
from trunkline.errors import (
    DataDamaged,
    DataDirLocked,
    DataDirNewer,
    StorageFull,
    StorageUnavailable,
    StoreOfAnotherEndpoint,
    TrunklineError,
)
from trunkline.model import ConversationId, EndpointId, Entry, Seq, UserId
from trunkline.sqlite import Fault

_FORMAT: Final = 2
_FROM_1: Final = """
INSERT INTO part (number, user, endpoint, cursor)
SELECT number, user, endpoint, cursor FROM endpoint;
DROP TABLE endpoint;
"""
_LOCK_SECONDS: Final = 0.5
_SEQ_BITS: Final = 36
_SEQ_MASK: Final = (1 << _SEQ_BITS) - 1
_INSERT_RUN: Final = "INSERT OR REPLACE INTO run (position, entries) VALUES (?, ?)"
_INSERT_COPY: Final = """
INSERT INTO copy (number, endpoint, state) VALUES (?, ?, ?)
ON CONFLICT (number) DO UPDATE SET state = excluded.state"""
_INSERT_OUTGOING: Final = "INSERT OR REPLACE INTO outbox (endpoint, number, frame) VALUES (?, ?, ?)"
_DELETE_OUTGOING: Final = "DELETE FROM outbox WHERE endpoint = ? AND number = ?"
_DELETE_RUNS: Final = "DELETE FROM run WHERE position BETWEEN ? AND ?"
_SELECT_RUNS: Final = "SELECT entries FROM run WHERE position BETWEEN ? AND ? ORDER BY position"
_SELECT_START: Final = "SELECT max(position) FROM run WHERE position BETWEEN ? AND ?"
_SELECT_LAST: Final = """
SELECT store FROM part WHERE user = ? AND endpoint = ? ORDER BY used DESC LIMIT 1"""
_INSERT_PART: Final = "INSERT OR IGNORE INTO part (user, endpoint, store) VALUES (?, ?, ?)"
_USE_PART: Final = """
UPDATE part SET used = (SELECT max(used) + 1 FROM part)
WHERE user = ? AND endpoint = ? AND store = ? RETURNING number, cursor, met"""
_MEET: Final = "UPDATE part SET store = ?, met = ? WHERE number = ?"
_SELECT_APART: Final = """
SELECT apart.number, part.store, apart.state, apart.settled
FROM part JOIN apart ON apart.part = part.number WHERE part.user = ?1 AND part.endpoint = ?2
UNION ALL SELECT copy.number, part.store, copy.state, 1
FROM part JOIN copy ON copy.endpoint = part.number
WHERE part.user = ?1 AND part.endpoint = ?2 AND part.number != ?3
ORDER BY 1"""
_SELECT_UNSETTLED: Final = "SELECT state FROM apart WHERE part = ? AND NOT settled"
_INSERT_APART: Final = "INSERT INTO apart (number, part, state, settled) VALUES (?, ?, ?, ?)"
_SELECT_HIGHEST_APART: Final = "SELECT coalesce(max(number), 0) FROM apart"
_SELECT_COPIES: Final = "SELECT number, state FROM copy WHERE endpoint = ?"
_SELECT_OUTBOX: Final = "SELECT number, frame FROM outbox WHERE endpoint = ? ORDER BY number"

_T = TypeVar("_T")


class _Stored:
    """Where a copy's runs lie, and how many small ones there are at its end."""

    __slots__ = ("number", "tail_first", "tail_rows")

    def __init__(self, number: int) -> None:
        self.number = number
        self.tail_first = 0
        self.tail_rows = 0


class SqliteStore:
    """A local store file; several endpoints, also of several users, may share it.

    One process at a time: a second one is refused with `DataDirLocked`.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trunkline-local-store")
        self._file: _File | None = None
        self._opening = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._open: dict[tuple[UserId, EndpointId], _SqliteEndpoint] = {}
        self._closed = False

    async def __aenter__(self) -> "SqliteStore":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self, user: UserId, endpoint: EndpointId) -> EndpointStore:
        """Opens an endpoint's part; raises `StoreOfAnotherEndpoint` if it is open already."""
        key = (user, endpoint)
        if key in self._open or self._closed:
            raise StoreOfAnotherEndpoint(
                f"Endpoint {endpoint!r} of {user!r} cannot be opened twice."
            )
        async with self._opening:
            if self._file is None:
                self._file = await self._run(lambda: _File(self._path))
        return self.hand_out(self._file, key, None)

    def hand_out(
        self, file: "_File", key: tuple[UserId, EndpointId], store: str | None
    ) -> "_SqliteEndpoint":
        """Opens the part of a server's store, or without one that which was used last."""
        handle = self._open[key] = _SqliteEndpoint(self, file, key, store)
        return handle

    async def flush(self) -> None:
        """Returns once everything written so far, by any endpoint, is on disk."""
        file = self._file
        if file is None:
            return
        wanted = file.written
        async with self._committing:
            if file.committed < wanted:
                await self._run(file.commit)

    async def read(self, do: Callable[[], _T]) -> _T:
        """Runs a read on the store's thread, behind what it does already."""
        return await self._run(do)

    def let_go(self, key: tuple[UserId, EndpointId]) -> None:
        """The endpoint was closed and may be opened again."""
        self._open.pop(key, None)

    async def close(self) -> None:
        """Flushes, closes the file and ends the thread."""
        if self._closed:
            return
        try:
            await self.flush()
        finally:
            self._closed = True
            if self._file is not None:
                await self._run(self._file.close)
            self._thread.shutdown(wait=False)

    async def _run(self, do: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, do)
        except (sqlite.Error, OSError, UnicodeDecodeError) as error:
            raise _named(error, self._path) from error


class _SqliteEndpoint:
    """One endpoint's part of the file."""

    def __init__(
        self,
        store: SqliteStore,
        file: "_File",
        key: tuple[UserId, EndpointId],
        part: str | None,
    ) -> None:
        self._store = store
        self._file = file
        self._key = key
        self._part = part
        self.number = 0
        self.copies: dict[ConversationId, _Stored] = {}

    async def load(self) -> Loaded:
        return await self._store.read(lambda: self._file.load(self, *self._key, self._part))

    async def part_of(self, store: str) -> EndpointStore:
        await self._store.flush()
        return self._store.hand_out(self._file, self._key, store)

    async def apart(self) -> list[Apart]:
        await self._store.flush()
        return await self._store.read(lambda: self._file.apart(self, *self._key))

    async def read_apart(self, number: int) -> list[Entry]:
        return await self._store.read(lambda: self._file.entries(number))

    async def settle(self, number: int, keep: Sequence[Entry]) -> None:
        await self._store.read(lambda: self._file.settle(number, keep))

    async def forget(self, numbers: Sequence[int]) -> None:
        await self._store.read(lambda: self._file.forget(numbers))

    def write(self, changes: Changes) -> None:
        self._file.write(self, changes)

    async def flush(self) -> None:
        await self._store.flush()

    async def read(
        self, conversation: ConversationId, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry]:
        await self._store.flush()
        return await self._store.read(
            lambda: self._file.read(self, conversation, after, up_to_inclusive)
        )

    async def close(self) -> None:
        try:
            await self._store.flush()
        finally:
            self._store.let_go(self._key)


class _File:
    """The connection; all but `write` runs on the store's thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite.connect(path, busy_seconds=_LOCK_SECONDS)
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise
        self._runs = RunPacker()
        self._waiting: deque[tuple[_SqliteEndpoint, Changes]] = deque()
        self.written = 0
        self.committed = 0

    def _prepare(self, path: Path) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA page_size = 8192")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 4096")
        ((found,),) = execute("PRAGMA user_version").fetchall()
        if found > _FORMAT:
            raise DataDirNewer(f"The local store {path} was written by a newer version.")
        tables = (files("trunkline.client") / "local_store.sql").read_text(encoding="utf-8")
        taken_over = _FROM_1 if found == 1 else ""
        execute(f"BEGIN IMMEDIATE; {tables} {taken_over} PRAGMA user_version = {_FORMAT}; COMMIT;")
        ((highest,),) = execute("SELECT max(number) FROM copy").fetchall()
        self._next_copy = (highest or 0) + 1

    def close(self) -> None:
        self._connection.close()

    def load(
        self, handle: _SqliteEndpoint, user: UserId, endpoint: EndpointId, store: str | None
    ) -> Loaded:
        execute = self._connection.execute
        name = (user.encode(), endpoint.encode())
        if store is None:
            ((store,),) = execute(_SELECT_LAST, name).fetchall() or [("",)]
        execute(_INSERT_PART, (*name, store))
        ((handle.number, cursor, met),) = execute(_USE_PART, (*name, store)).fetchall()
        copies: list[Copy] = []
        for number, state in execute(_SELECT_COPIES, (handle.number,)):
            copy = unpack_copy(state)
            copies.append(copy)
            handle.copies[copy.conversation] = _Stored(number)
        ((apart,),) = execute(_SELECT_HIGHEST_APART).fetchall()
        self._next_copy = max(self._next_copy, apart + 1)
        outbox = execute(_SELECT_OUTBOX, (handle.number,)).fetchall()
        return Loaded(
            cursor,
            copies,
            [Outgoing(number, frame) for number, frame in outbox],
            None if met is None else unpack_met(met),
            [unpack_copy(s).conversation for (s,) in execute(_SELECT_UNSETTLED, (handle.number,))],
        )

    def apart(self, handle: _SqliteEndpoint, user: UserId, endpoint: EndpointId) -> list[Apart]:
        asked = (user.encode(), endpoint.encode(), handle.number)
        return [
            Apart(number, store, unpack_copy(state), bool(settled))
            for number, store, state, settled in self._connection.execute(_SELECT_APART, asked)
        ]

    def entries(self, number: int) -> list[Entry]:
        base = number << _SEQ_BITS
        rows = self._connection.execute(_SELECT_RUNS, (base, base | _SEQ_MASK))
        return [entry for (data,) in rows for entry in self._runs.unpack(data)]

    def settle(self, number: int, keep: Sequence[Entry]) -> None:
        base = number << _SEQ_BITS
        pieces = [keep[at : at + RUN_ENTRIES] for at in range(0, len(keep), RUN_ENTRIES)]
        runs = [(base | piece[0].seq, self._runs.pack(list(piece))) for piece in pieces]
        with self._transaction():
            self._connection.execute(_DELETE_RUNS, (base, base | _SEQ_MASK))
            self._connection.executemany(_INSERT_RUN, runs)
            done = "UPDATE apart SET settled = 1" if keep else "DELETE FROM apart"
            self._connection.execute(f"{done} WHERE number = ?", (number,))

    def forget(self, numbers: Sequence[int]) -> None:
        execute = self._connection.execute
        with self._transaction():
            for number in numbers:
                base = number << _SEQ_BITS
                execute(_DELETE_RUNS, (base, base | _SEQ_MASK))
                execute("DELETE FROM copy WHERE number = ?", (number,))
                execute("DELETE FROM apart WHERE number = ?", (number,))

    def read(
        self, handle: _SqliteEndpoint, conversation: ConversationId, after: Seq, up_to: Seq
    ) -> list[Entry]:
        stored = handle.copies.get(conversation)
        if stored is None or up_to <= after:
            return []
        base = stored.number << _SEQ_BITS
        execute = self._connection.execute
        ((start,),) = execute(_SELECT_START, (base, base | (after + 1))).fetchall()
        rows = execute(_SELECT_RUNS, (base if start is None else start, base | up_to))
        return [
            entry
            for (data,) in rows
            for entry in self._runs.unpack(data)
            if after < entry.seq <= up_to
        ]

    def write(self, handle: _SqliteEndpoint, changes: Changes) -> None:
        """Called on the loop's thread: hands changes over to the next commit."""
        self._waiting.append((handle, changes))
        self.written += 1

    def commit(self) -> None:
        """Writes all that waits as one transaction; on failure all of it waits again."""
        batch = list(self._waiting)
        if not batch:
            return
        with self._transaction():
            self._apply(batch)
        for _ in batch:
            self._waiting.popleft()
        self.committed += len(batch)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            yield
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _apply(self, batch: list[tuple[_SqliteEndpoint, Changes]]) -> None:
        many = self._connection.executemany
        runs: list[tuple[int, bytes]] = []
        for handle, changes in batch:
            if changes.aside:
                self._put_aside(handle, changes, runs)
            if changes.dropped:
                many(_INSERT_RUN, runs)
                runs.clear()
                for conversation in changes.dropped:
                    self._drop(self._stored(handle, conversation))
            for conversation, parts in changes.runs:
                self._add(self._stored(handle, conversation), parts, runs)
        many(_INSERT_RUN, runs)
        many(_INSERT_COPY, self._newest_copies(batch))
        self._apply_outbox(batch)
        cursors = [
            (changes.cursor, handle.number)
            for handle, changes in batch
            if changes.cursor is not None
        ]
        many("UPDATE part SET cursor = ? WHERE number = ?", cursors)
        met = [
            (changes.met.life.id, pack_met(changes.met), handle.number)
            for handle, changes in batch
            if changes.met is not None
        ]
        many(_MEET, met)

    def _put_aside(
        self, handle: _SqliteEndpoint, changes: Changes, runs: list[tuple[int, bytes]]
    ) -> None:
        """Gives copies up to what is set apart; the copies to come get other numbers."""
        for copy, parts, compare in changes.aside:
            stored = self._stored(handle, copy.conversation)
            if parts:
                self._add(stored, parts, runs)
            self._connection.executemany(_INSERT_RUN, runs)
            runs.clear()
            row = (stored.number, handle.number, pack_copy(copy), not compare)
            self._connection.execute(_INSERT_APART, row)
            self._connection.execute("DELETE FROM copy WHERE number = ?", (stored.number,))
            del handle.copies[copy.conversation]

    def _apply_outbox(self, batch: list[tuple[_SqliteEndpoint, Changes]]) -> None:
        posted: dict[tuple[int, int], bytes] = {}
        settled: list[tuple[int, int]] = []
        for handle, changes in batch:
            posted.update(((handle.number, o.number), o.frame) for o in changes.posted)
            keys = [(handle.number, number) for number in changes.settled]
            settled += [key for key in keys if posted.pop(key, None) is None]
        rows = [(endpoint, number, frame) for (endpoint, number), frame in posted.items()]
        self._connection.executemany(_INSERT_OUTGOING, rows)
        self._connection.executemany(_DELETE_OUTGOING, settled)

    def _newest_copies(
        self, batch: list[tuple[_SqliteEndpoint, Changes]]
    ) -> list[tuple[int, int, bytes]]:
        rows: dict[int, tuple[int, int, bytes]] = {}
        for handle, changes in batch:
            for copy in changes.copies:
                number = self._stored(handle, copy.conversation).number
                rows[number] = (number, handle.number, pack_copy(copy))
        return list(rows.values())

    def _stored(self, handle: _SqliteEndpoint, conversation: ConversationId) -> _Stored:
        stored = handle.copies.get(conversation)
        if stored is None:
            stored = handle.copies[conversation] = _Stored(self._next_copy)
            self._next_copy += 1
        return stored

    def _drop(self, stored: _Stored) -> None:
        base = stored.number << _SEQ_BITS
        self._connection.execute(_DELETE_RUNS, (base, base | _SEQ_MASK))
        stored.tail_rows = 0

    def _add(
        self, stored: _Stored, parts: Sequence[list[Entry]], runs: list[tuple[int, bytes]]
    ) -> None:
        entries = parts[0] if len(parts) == 1 else [entry for part in parts for entry in part]
        base = stored.number << _SEQ_BITS
        if len(entries) < RUN_ENTRIES // 4:
            if stored.tail_rows == 0:
                stored.tail_first = entries[0].seq
            stored.tail_rows += 1
            if stored.tail_rows >= TAIL_ROWS:
                entries = self._take_tail(base, stored, runs) + entries
        else:
            stored.tail_rows = 0
        for start in range(0, len(entries), RUN_ENTRIES):
            piece = entries[start : start + RUN_ENTRIES]
            runs.append((base | piece[0].seq, self._runs.pack(piece)))

    def _take_tail(self, base: int, stored: _Stored, runs: list[tuple[int, bytes]]) -> list[Entry]:
        """Takes the small runs at the end away, to be written as one."""
        self._connection.executemany(_INSERT_RUN, runs)
        runs.clear()
        bounds = (base | stored.tail_first, base | _SEQ_MASK)
        rows = self._connection.execute(_SELECT_RUNS, bounds).fetchall()
        self._connection.execute(_DELETE_RUNS, bounds)
        stored.tail_rows = 0
        return [entry for (data,) in rows for entry in self._runs.unpack(data)]


def _named(error: Exception, path: Path) -> TrunklineError:
    match sqlite.fault_of(error):
        case Fault.FULL:
            return StorageFull(f"There is no room for the local store {path}.")
        case Fault.BUSY:
            return DataDirLocked(f"Another process has the local store {path} open: stop it first.")
        case Fault.DAMAGED:
            return DataDamaged(
                f"The local store {path} is damaged: remove it, it is pulled afresh."
            )
        case Fault.OTHER:
            return StorageUnavailable(f"The local store {path} does not answer: {error}")
