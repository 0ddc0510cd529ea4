"""Answers what an audit asks of a data directory at rest: every record, every file as it is.

The files are read as immutable: nothing is changed, not even by SQLite's own recovery, so
what a damaged write-ahead log holds stays there.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from trunkline import sqlite
from trunkline.adapters.sqlite import records
from trunkline.adapters.sqlite.cold import unpack_metadata
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.records import MemberRow
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.sql import statement
from trunkline.adapters.sqlite.tables import signed, unsigned
from trunkline.adapters.sqlite.takeover import take_over
from trunkline.adapters.sqlite.wal import check_wal
from trunkline.core import digest as digests
from trunkline.core.rows import ConversationRow, conversation_of, member_of
from trunkline.errors import DataDamaged
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationKey,
    Digest,
    EndpointId,
    Member,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
    UserId,
)
from trunkline.ports.inspection import KnownId, Listing, StoreFault

_RUN: Final = 512
_CACHE_KIB: Final = 64 << 10
_HOT_TABLES: Final = (
    "conversation", "message", "idempotency", "member", "user_conversation", "endpoint_offset",
)  # fmt: skip
_COLD_TABLES: Final = ("segment", "metadata")

Row = tuple[Any, ...]
Record = TypeVar("Record")


class _KeyRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key: int


class _OffsetRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    user: UserId
    endpoint: EndpointId
    seq: Seq


class _SegmentRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    first: Seq
    last: Seq
    digest: bytes
    sealed: bytes


class _WatermarkRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    journal_id: int
    version: int
    highest_listed: int


class _JournalRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    id: int
    body: bytes


class _File:
    """One database file, read as it stands. Its errors become `DataDamaged`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named():
            self._connection = sqlite.connect_immutable(path)
            self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite.Error, UnicodeDecodeError) as error:
            raise DataDamaged(f"{self.path.name} is damaged: {error}.") from error

    def rows(self, name: str, *values: object) -> Iterator[Row]:
        """The rows of a named statement."""
        with self._named():
            yield from self._connection.execute(statement(name), values)

    def runs(self, kind: type[Record], name: str, *values: object) -> Iterator[list[Record]]:
        """The rows as records, in runs; one that is none raises after its run has come."""
        with self._named():
            cursor = self._connection.execute(statement(name), values)
        while True:
            with self._named():
                rows = list(islice(cursor, _RUN))
            if not rows:
                return
            try:
                yield msgspec.convert(rows, list[kind])  # type: ignore[valid-type]
            except msgspec.ValidationError:
                yield from self._sound_part(kind, rows)

    def _sound_part(self, kind: type[Record], rows: list[Row]) -> Iterator[list[Record]]:
        """Those of a run's rows that are records; then the error of one that is none."""
        sound: list[Record] = []
        damage: DataDamaged | None = None
        for row in rows:
            try:
                sound.append(self.record(kind, row))
            except DataDamaged as error:
                damage = error
        yield sound
        if damage is not None:
            raise damage

    def records(self, kind: type[Record], name: str, *values: object) -> Iterator[Record]:
        """The rows as records, one by one."""
        for run in self.runs(kind, name, *values):
            yield from run

    def record(self, kind: type[Record], row: Row) -> Record:
        """A row as a record, its values of the right types."""
        try:
            return msgspec.convert(row, kind)
        except msgspec.ValidationError as error:
            raise DataDamaged(f"{self.path.name}: a row does not decode: {error}.") from error

    def faults(self) -> Iterator[StoreFault]:
        """What SQLite's own check finds, and a write-ahead log that was not taken over."""
        name = self.path.name
        left = check_wal(self.path.with_name(name + "-wal"))
        if left.damage or left.frames:
            yield StoreFault(name, left.damage or f"{left.frames} frames were not taken over.")
        try:
            for row in self.rows("inspect_integrity"):
                if row[0] != "ok":
                    yield StoreFault(name, f"SQLite's check: {row[0]}.")
        except DataDamaged as error:
            yield StoreFault(name, error.detail)

    async def keys(self, tables: Sequence[str]) -> AsyncIterator[ConversationKey]:
        """The keys of these tables; what a damaged one does not tell the others may."""
        keys: set[int] = set()
        damage: DataDamaged | None = None
        for table in tables:
            try:
                keys.update(row.key for row in self.records(_KeyRow, f"inspect_keys_{table}"))
            except DataDamaged as error:
                damage = error
        for key in sorted(keys):
            yield unsigned(key)
        if damage is not None:
            raise damage


class _ByKey:
    """A table that is kept in another order, asked for one key after the other."""

    def __init__(self, file: _File, name: str) -> None:
        self._file = file
        self._name = name
        self._rows: Iterator[Row] = iter(())
        self._next: Row | None = None
        self._asked: int | None = None

    def records(self, kind: type[Record], key: ConversationKey) -> Iterator[Record]:
        """The records of a key, whose rows begin with it. Going back reads from the start."""
        number = signed(key)
        if self._asked is None or number <= self._asked:
            self._rows = self._file.rows(self._name)
            self._advance()
        self._asked = number
        while self._next is not None and self._next[0] < number:
            self._advance()
        while self._next is not None and self._next[0] == number:
            row = self._next
            self._advance()
            yield self._file.record(kind, row[1:])

    def close(self) -> None:
        """Lets go of the file, which must still be open."""
        self._rows = iter(())

    def _advance(self) -> None:
        self._next = next(self._rows, None)
        if self._next is not None and not isinstance(self._next[0], int):
            self._next = None
            raise DataDamaged(f"{self._file.path.name}: a row's key is no number.")


class HotInspector:
    """A `ports.inspection.HotInspection` over tables.db, with the state of journal.db."""

    def __init__(self, tables: _File, journal: _File, left_over: Sequence[StoreFault]) -> None:
        self._tables = tables
        self._journal = journal
        self._left_over = left_over
        self._listings = _ByKey(tables, "inspect_listings")
        self._offsets = _ByKey(tables, "inspect_offsets")

    def close(self) -> None:
        """Ends what is still being read; the files must still be open."""
        self._listings.close()
        self._offsets.close()

    async def faults(self) -> Sequence[StoreFault]:
        """Both files by themselves; the watermark; what waits in the journal."""
        return [
            *self._left_over,
            *self._tables.faults(),
            *self._journal.faults(),
            *self._journal_faults(),
        ]

    def _journal_faults(self) -> Iterator[StoreFault]:
        tables, journal = self._tables.path.name, self._journal.path.name
        try:
            marks = list(self._tables.records(_WatermarkRow, "inspect_watermark"))
            if len(marks) != 1:
                yield StoreFault(tables, f"There are {len(marks)} watermarks.")
                return
            mark = marks[0]
            if mark.highest_listed > mark.version:
                what = f"A list has version {mark.highest_listed}, beyond {mark.version}."
                yield StoreFault(tables, what)
            waiting = 0
            for row in self._journal.records(_JournalRow, "inspect_journal"):
                records.unpack(row.id, row.body)
                waiting += row.id > mark.journal_id
            if waiting:
                yield StoreFault(journal, f"{waiting} commits were not taken over into {tables}.")
        except DataDamaged as error:
            yield StoreFault(journal, error.detail)
        except msgspec.MsgspecError as error:
            yield StoreFault(journal, f"A row does not decode: {error}.")

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key of any table."""
        return self._tables.keys(_HOT_TABLES)

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        """The conversation's row."""
        for row in self._tables.records(ConversationRow, "conversation_by_key", signed(key)):
            _digest(row.digest)
            return msgspec.structs.replace(conversation_of(row), key=key)
        return None

    async def members(self, key: ConversationKey) -> Sequence[Member]:
        """All members."""
        found = []
        for row in self._tables.records(MemberRow, "inspect_members", signed(key)):
            _digest(row.digest_before)
            _digest(row.left_digest)
            found.append(member_of(row, row.mac))
        return found

    async def entries(self, key: ConversationKey) -> AsyncIterator[Sequence[StoredEntry]]:
        """All rows of entries."""
        for run in self._tables.runs(StoredEntry, "inspect_messages", signed(key)):
            yield run

    async def known_ids(self, key: ConversationKey) -> AsyncIterator[Sequence[KnownId]]:
        """All idempotency rows."""
        for run in self._tables.runs(KnownId, "inspect_known_ids", signed(key)):
            yield run

    async def listings(self, key: ConversationKey) -> Sequence[Listing]:
        """The lines of users' lists that name the key."""
        return list(self._listings.records(Listing, key))

    async def offsets(self, key: ConversationKey) -> Sequence[OffsetMove]:
        """The read offsets of all endpoints."""
        found = self._offsets.records(_OffsetRow, key)
        return [OffsetMove(key, row.user, row.endpoint, row.seq) for row in found]


class ColdInspector:
    """A `ports.inspection.ColdInspection` over cold.db."""

    def __init__(self, cold: _File) -> None:
        self._cold = cold

    async def faults(self) -> Sequence[StoreFault]:
        """The file by itself."""
        return list(self._cold.faults())

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key of a segment or of metadata."""
        return self._cold.keys(_COLD_TABLES)

    async def segments(self, key: ConversationKey) -> AsyncIterator[Segment]:
        """All segments, by first and last."""
        for row in self._cold.records(_SegmentRow, "inspect_segments", signed(key)):
            yield Segment(key, row.first, row.last, _digest(row.digest), row.sealed)

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata."""
        for row in self._cold.rows("metadata", signed(key)):
            return unpack_metadata(row[0], self._cold.path.name)
        return None


class Inspection:
    """A data directory, locked and read as it stands, between `with` and its end.

    Entering takes over what a crash left, as a start would; what is in the way of that
    stands in `left_over`, and in `hot.faults()`. Raises what `DataDirectory.open` raises:
    `DataDirLocked`, `DataDirNewer`, `DataDirInvalid`, and `DataDamaged` if a file is gone.
    """

    hot: HotInspector
    cold: ColdInspector
    left_over: Sequence[StoreFault]

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        self._path = path
        self._settings = settings or Settings()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            wait_seconds = self._settings.lock_wait_seconds
            directory = DataDirectory.open(self._path, lock_wait_seconds=wait_seconds)
            stack.callback(directory.close)
            self.left_over = take_over(directory, self._settings)
            tables, journal, cold = (
                stack.enter_context(closing(_File(path)))
                for path in (directory.tables, directory.journal, directory.cold)
            )
            self.hot = HotInspector(tables, journal, self.left_over)
            self.cold = ColdInspector(cold)
            stack.callback(self.hot.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def _digest(data: bytes) -> Digest:
    """The digest of a column: 16 bytes, or none for the digest of nothing."""
    if len(data) not in (0, digests.DIGEST_BYTES):
        raise DataDamaged(f"A digest has {len(data)} bytes.")
    return digests.from_bytes(data)
