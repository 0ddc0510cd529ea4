"""Moves slices of the journal into the tables: sorted by key, absolute values, watermark last."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.adapters.sqlite.database import (
    BUSY_SECONDS,
    PAGE_BYTES,
    checkpoint,
    connect,
    log_file_bytes,
    translated,
)
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.records import Archived, MemberRow, OffsetSet, Trimmed, Written
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.sql import statement
from trunkline.adapters.sqlite.tables import signed
from trunkline.core.appending import sent_markers
from trunkline.core.rows import ConversationRow
from trunkline.model import (
    NO_SEQ,
    ConversationId,
    ConversationKey,
    EndpointId,
    Seq,
    StoredEntry,
    UserId,
)

_CHECKPOINT_PAGES: Final = 2_000
LOG_BYTES: Final = 2 * _CHECKPOINT_PAGES * PAGE_BYTES
"""What the tables' write-ahead log shrinks to."""
_CONVERSATIONS_AT_ONCE: Final = 500
_TRIMMED_AT_ONCE: Final = 1_000
_SWEPT_LEAST: Final = 1_000
_DAY_MS: Final = 86_400_000
_FIRST_IDENTITY: Final = (-(1 << 63), "", "")
_LAST_IDENTITY: Final = ((1 << 63) - 1, b"", b"")  # SQLite sorts any text below a blob

Row = tuple[Any, ...]


class _Change(msgspec.Struct):
    """What a slice does to one conversation."""

    row: ConversationRow | None = None
    entries: list[StoredEntry] = msgspec.field(default_factory=list)
    members: dict[UserId, MemberRow] = msgspec.field(default_factory=dict)
    archived_up_to: Seq = Seq(0)
    trimmed_up_to: Seq = Seq(0)


class _Slice:
    """The commits of a slice, gathered by what they change."""

    def __init__(self) -> None:
        self.changes: dict[ConversationKey, _Change] = {}
        self.lines: dict[tuple[UserId, ConversationKey], tuple[ConversationId, int]] = {}
        self.offsets: dict[tuple[UserId, EndpointId, ConversationKey], Seq] = {}
        self.version = 0
        self.age_ms = 0
        self.weight = 0

    def change(self, key: ConversationKey) -> _Change:
        found = self.changes.get(key)
        if found is None:
            found = self.changes[key] = _Change()
        return found

    def write(self, record: Written) -> None:
        change = self.change(record.key)
        if record.row is not None:
            change.row = record.row
        change.entries += record.entries
        for member in record.members:
            change.members[member.user] = member
            self.lines[member.user, record.key] = (record.id, member.version)


class Materialiser:
    """The one writer of the tables' file; blocking, used by one thread at a time."""

    def __init__(
        self,
        journal: Path,
        tables: Path,
        *,
        transaction_entries: int,
        cache_bytes: int,
        idempotency_days: int,
    ) -> None:
        self._file = tables.name
        self._path = tables
        self._transaction_entries = transaction_entries
        self._idempotency_ms = idempotency_days * _DAY_MS
        self._swept: Row = _FIRST_IDENTITY
        self._journal = Journal.reader(journal)
        try:
            self._connection = connect(
                tables, cache_bytes=cache_bytes, checkpoint_pages=_CHECKPOINT_PAGES,
                log_bytes=LOG_BYTES,
            )  # fmt: skip
        except BaseException:
            self._journal.close()
            raise

    def slice(self, up_to_inclusive: int, step_ms: int) -> int:
        """Moves the commits beyond the watermark, up to this one, into the tables.

        `step_ms`: how far the store's age moves on, which says what expires (`core.aging`).
        Returns the watermark. Where there is nothing to move it looks after the tables' log
        instead. May be cut off and repeated anywhere: the same values are written again. Raises
        `DataDamaged`, `StorageFull`, `StorageUnavailable`.
        """
        with translated(self._file):
            ((moved, _),) = self._connection.execute(statement("watermark")).fetchall()
        watermark = int(moved)
        if up_to_inclusive <= watermark:
            self._shorten_log()
            return watermark
        gathered = self._gather(watermark, up_to_inclusive)
        with translated(self._file):
            ((age_ms,),) = self._connection.execute(statement("age")).fetchall()
        gathered.age_ms = age_ms + step_ms
        with translated(self._file):
            # The last transaction's sync takes all before it along: the WAL is one file. Until
            # then the journal has everything, so syncing each would only hold up commits.
            self._connection.execute("PRAGMA synchronous=NORMAL").fetchall()
            for keys in self._portions(gathered):
                self._transaction(self._write_conversations, gathered, keys)
            for key, change in gathered.changes.items():
                if change.trimmed_up_to:
                    self._trim(key, change.trimmed_up_to)
            self._transaction(self._sweep, gathered)
            self._connection.execute("PRAGMA synchronous=FULL").fetchall()
            self._transaction(self._finish, gathered, up_to_inclusive)
        return up_to_inclusive

    def _shorten_log(self) -> None:
        """Gives back what the WAL took while a reader was in the way, unless one still is."""
        if log_file_bytes(self._path) <= LOG_BYTES:
            return
        with translated(self._file):
            self._connection.set_busy_timeout(0)
            try:
                checkpoint(self._connection, "TRUNCATE")
            finally:
                self._connection.set_busy_timeout(int(BUSY_SECONDS * 1_000))

    def close(self) -> None:
        """Empties the tables' WAL and closes the files."""
        self._journal.close()
        with translated(self._file):
            try:
                checkpoint(self._connection, "TRUNCATE")
            finally:
                self._connection.close()

    def _gather(self, watermark: int, up_to_inclusive: int) -> _Slice:
        gathered = _Slice()
        for _, commit, _ in self._journal.after(watermark, up_to_inclusive):
            gathered.version = max(gathered.version, commit.version)
            gathered.weight += commit.weight()
            for record in commit.records:
                match record:
                    case Written():
                        gathered.write(record)
                    case OffsetSet(user=user, endpoint=endpoint, key=key, seq=seq):
                        identity = (user, endpoint, key)
                        old = gathered.offsets.get(identity, seq)
                        gathered.offsets[identity] = max(seq, old)
                    case Archived(key=key, up_to_inclusive=up_to):
                        change = gathered.change(key)
                        change.archived_up_to = max(change.archived_up_to, up_to)
                    case Trimmed(key=key, up_to_inclusive=up_to):
                        change = gathered.change(key)
                        change.trimmed_up_to = max(change.trimmed_up_to, up_to)
        return gathered

    def _portions(self, gathered: _Slice) -> Iterator[list[ConversationKey]]:
        """The slice's conversations in key order, as many at a time as one transaction takes."""
        keys: list[ConversationKey] = []
        entries = 0
        for key in sorted(gathered.changes):
            keys.append(key)
            entries += len(gathered.changes[key].entries)
            if entries >= self._transaction_entries or len(keys) >= _CONVERSATIONS_AT_ONCE:
                yield keys
                keys, entries = [], 0
        if keys:
            yield keys

    def _transaction(self, work: Any, *arguments: Any) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            work(*arguments)
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _many(self, name: str, rows: list[Row]) -> None:
        if rows:
            self._connection.executemany(statement(name), rows)

    def _write_conversations(self, gathered: _Slice, keys: list[ConversationKey]) -> None:
        puts: list[Row] = []
        heads: list[Row] = []
        marks: list[Row] = []
        members: list[Row] = []
        markers: list[Row] = []
        messages: list[Row] = []
        identities: list[Row] = []
        trimmed = self._trimmed(keys)
        for key in keys:
            change = gathered.changes[key]
            number = signed(key)
            if change.row is not None:
                puts.append(_conversation_columns(number, change.row))
            if change.entries:
                last = change.entries[-1]
                heads.append((last.seq, last.countable, last.digest, number))
            if change.archived_up_to or change.trimmed_up_to:
                marks.append((change.archived_up_to, change.trimmed_up_to, number))
            members += [_member_columns(number, member) for member in change.members.values()]
            markers += [
                (entry.seq, entry.countable, number, sender, entry.seq)
                for sender, entry in sent_markers(change.entries).items()
            ]
            trimmed_up_to = max(change.trimmed_up_to, trimmed.get(number, NO_SEQ))
            messages += _message_columns(number, change, trimmed_up_to)
            identities += [
                (number, entry.sender, entry.client_message_id, entry.seq, gathered.age_ms)
                for entry in change.entries
                if entry.client_message_id
            ]
        self._many("conversation_put", puts)
        self._many("conversation_head", heads)
        self._many("conversation_marks", marks)
        self._many("member_put", members)
        self._many("member_marker", markers)
        self._many("message_put", messages)
        identities.sort()
        self._many("idempotency_put", identities)

    def _trimmed(self, keys: list[ConversationKey]) -> dict[int, Seq]:
        """Where these conversations are trimmed: nothing at or below comes into the tables."""
        numbers = msgspec.json.encode([signed(key) for key in keys]).decode()
        rows = self._connection.execute(statement("trimmed"), (numbers,)).fetchall()
        return dict(rows)

    def _trim(self, key: ConversationKey, up_to_inclusive: Seq) -> None:
        number = signed(key)
        ((first,),) = self._connection.execute(statement("first_message"), (number,)).fetchall()
        while first is not None and first <= up_to_inclusive:
            first += _TRIMMED_AT_ONCE
            most = min(first - 1, up_to_inclusive)
            self._transaction(self._many, "message_trim", [(number, most)])

    def _sweep(self, gathered: _Slice) -> None:
        """Drops client message ids past their time, going round the table in steps.

        A step is twice what the slice brought, so that a round is never outrun.
        """
        step = 2 * gathered.weight + _SWEPT_LEAST
        end = self._connection.execute(statement("idempotency_step"), (*self._swept, step))
        (to,) = end.fetchall() or (None,)
        oldest_ms = gathered.age_ms - self._idempotency_ms
        self._many("idempotency_sweep", [(*self._swept, *(to or _LAST_IDENTITY), oldest_ms)])
        self._swept = to or _FIRST_IDENTITY

    def _finish(self, gathered: _Slice, up_to_inclusive: int) -> None:
        self._many(
            "user_conversation_put",
            [
                (user, signed(key), conversation, version)
                for (user, key), (conversation, version) in sorted(gathered.lines.items())
            ],
        )
        self._many(
            "offset_put",
            [
                (user, endpoint, signed(key), seq)
                for (user, endpoint, key), seq in sorted(gathered.offsets.items())
            ],
        )
        self._many("age_move", [(gathered.age_ms,)])
        self._many("watermark_move", [(up_to_inclusive, gathered.version)])


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The watermark, or the code of an error and what it says."""

    watermark: int = 0
    error: str = ""
    detail: str = ""


def open_materialiser(directory: Path, settings: Settings) -> Materialiser:
    """The materialiser of a data directory that the caller or its parent has locked."""
    return Materialiser(
        directory / "journal.db",
        directory / "tables.db",
        transaction_entries=settings.transaction_entries,
        cache_bytes=settings.tables_cache_bytes,
        idempotency_days=settings.idempotency_days,
    )


def _conversation_columns(number: int, row: ConversationRow) -> Row:
    return (number, *msgspec.structs.astuple(row)[1:])


def _member_columns(number: int, row: MemberRow) -> Row:
    return (number, *msgspec.structs.astuple(row)[:-2], row.mac)


def _message_columns(number: int, change: _Change, trimmed_up_to: Seq) -> list[Row]:
    return [
        (
            number, e.seq, e.sender, e.client_message_id, e.kind, e.time_ms,
            e.refers_to, e.countable, e.entry_hash, e.digest, e.sealed,
        )
        for e in change.entries
        if e.seq > trimmed_up_to
    ]  # fmt: skip
