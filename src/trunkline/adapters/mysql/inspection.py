"""Answers what an audit asks of the hot databases: every record, as one snapshot shows it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from trunkline.adapters.mysql.connection import Connection, Row, connect
from trunkline.adapters.mysql.migrate import shipped_steps, unfit, versions_of
from trunkline.adapters.mysql.rows import conversation_of, entry_of, member_of
from trunkline.adapters.mysql.settings import DatabaseSettings, Settings
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.core.compact import long_id
from trunkline.core.ids import SHARDS, shard_hash, shard_of
from trunkline.errors import DataDamaged, TrunklineError
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    EndpointId,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
)
from trunkline.ports.inspection import KnownId, Listing, StoreFault

_RUN: Final = 512
_FAULTS_ALIKE: Final = 10
_LAST_KEY: Final = (1 << 64) - 1
_KEYS_A_SHARD: Final = (1 << 64) // SHARDS
_ANSWER_SECONDS: Final = 600.0
_CHECK_SECONDS: Final = 6 * 3600.0
"""A table is checked page by page: of a large one, for hours."""
_SNAPSHOT: Final = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    # Idle while another database is read; a new session would see another moment.
    "SET SESSION wait_timeout = 604800",
)
_OF_CONVERSATIONS: Final = (
    "conversation", "message", "idempotency", "member", "outbox", "archive_task",
)  # fmt: skip
_OF_USERS: Final = ("user_conversation", "endpoint_offset")
_TABLES: Final = (
    *_OF_CONVERSATIONS,
    *_OF_USERS,
    "user_version",
    "shard",
    "schema_step",
    "deployment",
)

Record = TypeVar("Record")


class _Snapshot:
    """One database as of when this was opened, read-only."""

    def __init__(self, settings: Settings, place: DatabaseSettings, connection: Connection) -> None:
        self.place = place
        self.name = f"{place.host}:{place.port}/{place.database}"
        self._settings = settings
        self._connection = connection
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, settings: Settings, place: DatabaseSettings) -> Self:
        """Opens a session of its own and takes the snapshot."""
        patient = msgspec.structs.replace(
            settings, answer_seconds=max(settings.answer_seconds, _ANSWER_SECONDS)
        )
        connection = await connect(patient, place, (*_SNAPSHOT, statement("snapshot_start")))
        return cls(settings, place, connection)

    async def close(self) -> None:
        """Ends the snapshot with its session."""
        self._connection.close()

    async def rows(self, sql: str) -> Sequence[Row]:
        """The rows of a query."""
        async with self._turn:
            return await self._connection.rows(sql)

    def record(self, table: str, make: Callable[[Row], Record], row: Row) -> Record:
        """The record of a row; raises `DataDamaged` that names the table if it is none."""
        try:
            return make(row)
        except DataDamaged as error:
            raise DataDamaged(f"{self.name}, table {table}: {error.detail}") from error

    def records(
        self, table: str, make: Callable[[Row], Record], rows: Iterable[Row]
    ) -> list[Record]:
        """The records of rows."""
        return [self.record(table, make, row) for row in rows]

    def sound_part(
        self, table: str, make: Callable[[Row], Record], rows: Iterable[Row]
    ) -> Iterator[list[Record]]:
        """Those rows that are records; then the error of one that is none."""
        sound: list[Record] = []
        damage: DataDamaged | None = None
        for row in rows:
            try:
                sound.append(self.record(table, make, row))
            except DataDamaged as error:
                damage = error
        if sound:
            yield sound
        if damage is not None:
            raise damage

    async def faults(self) -> AsyncIterator[StoreFault]:
        """What is wrong with the database itself."""
        for part in (self._checked(), self._schema(), self._misplaced(), self._users()):
            try:
                async for what in part:
                    yield StoreFault(self.name, what)
            except TrunklineError as error:
                yield StoreFault(self.name, error.detail)

    async def _checked(self) -> AsyncIterator[str]:
        # It commits what is open, so it runs in a session of its own.
        patient = msgspec.structs.replace(self._settings, answer_seconds=_CHECK_SECONDS)
        connection = await connect(patient, self.place, ())
        try:
            for table in _TABLES:
                found = await connection.rows(statement("check_table", lists={"table": table}))
                for _, _, kind, text in found:
                    if (kind, text) != ("status", "OK"):
                        yield f"Table {table}, {kind}: {text}."
        finally:
            connection.close()

    async def _schema(self) -> AsyncIterator[str]:
        found = versions_of(await self.rows(statement("schema_steps")))
        if problem := unfit(found, shipped_steps()):
            yield f"It {problem.why}."
        held = {shard for shard, _ in await self.rows(statement("shards"))}
        first, last = self.place.shards
        missing = [shard for shard in range(first, last + 1) if shard not in held]
        if missing:
            yield f"It has no epoch for {len(missing)} of its shards, the first is {missing[0]}."

    async def _misplaced(self) -> AsyncIterator[str]:
        """Rows of conversations whose shard another database holds."""
        first, last = self.place.shards
        ends = {"first": first * _KEYS_A_SHARD, "last": (last + 1) * _KEYS_A_SHARD - 1}
        for table in _OF_CONVERSATIONS:
            text = statement("inspect_outside", lists={"table": table}, limit=_FAULTS_ALIKE, **ends)
            for (key,) in await self.rows(text):
                shard = shard_of(ConversationKey(key))
                yield f"Table {table} names key {key:#018x}, of shard {shard}, not held here."

    async def _users(self) -> AsyncIterator[str]:
        """Rows of users whose shard another database holds; versions that were never given out."""
        first, last = self.place.shards
        for table in (*_OF_USERS, "user_version"):
            alike = 0
            async for user, highest, given_out in self._user_rows(table):
                if not first <= shard_hash(user) <= last:
                    what = f"names user {user!r}, of shard {shard_hash(user)}, not held here."
                elif highest > given_out:
                    what = f"has version {highest} for user {user!r}, beyond {given_out}."
                else:
                    continue
                yield f"Table {table} {what}"
                alike += 1
                if alike == _FAULTS_ALIKE:
                    break

    async def _user_rows(self, table: str) -> AsyncIterator[tuple[UserId, int, int]]:
        """Users of a table; of the lists also the highest version and the one given out."""
        after: bytes | None = None
        while True:
            name = "inspect_versions" if table == "user_conversation" else "inspect_users"
            found = await self.rows(
                statement(name, lists={"table": table}, first=after or b"", limit=_RUN)
            )
            for row in found:
                if row[0] != after:
                    highest, given_out = row[1:] or (0, 0)
                    yield self.record(table, _user_of, row), highest, given_out
            if len(found) < _RUN:
                return
            after = found[-1][0]


class HotInspector:
    """A `ports.inspection.HotInspection` over all databases."""

    def __init__(self, snapshots: Sequence[_Snapshot]) -> None:
        self._shards = ShardMap((snapshot.place.shards, snapshot) for snapshot in snapshots)
        self._waiting: dict[ConversationKey, list[Listing]] | None = None

    async def faults(self) -> Sequence[StoreFault]:
        """CHECK TABLE of every table; the schema; rows that stand in the wrong database."""
        return [fault for snapshot in self._shards.all async for fault in snapshot.faults()]

    async def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key of any table; what a damaged one does not tell the others may."""
        sources = [
            (snapshot, table)
            for snapshot in self._shards.all
            for table in (*_OF_CONVERSATIONS, *_OF_USERS)
        ]
        damage: DataDamaged | None = None
        first = 0
        while first <= _LAST_KEY:
            up_to, found = _LAST_KEY, set[int]()
            for source in list(sources):
                snapshot, table = source
                text = statement("inspect_keys", lists={"table": table}, first=first, limit=_RUN)
                try:
                    page = [key for (key,) in await snapshot.rows(text)]
                except DataDamaged as error:
                    damage = error
                    sources.remove(source)
                    continue
                found.update(page)
                if len(page) == _RUN:  # further keys of this table may be next
                    up_to = min(up_to, page[-1])
            for key in sorted(found):
                if key <= up_to:
                    yield ConversationKey(key)
            first = up_to + 1
        if damage is not None:
            raise damage

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        """The conversation's row, where its shard is held."""
        snapshot = self._shards.of_key(key)
        found = await snapshot.rows(statement("conversations", lists={"keys": str(key)}))
        return snapshot.record("conversation", conversation_of, found[0]) if found else None

    async def members(self, key: ConversationKey) -> Sequence[Member]:
        """All members."""
        snapshot = self._shards.of_key(key)
        found = await snapshot.rows(statement("members", key=key))
        return snapshot.records("member", member_of, found)

    async def entries(self, key: ConversationKey) -> AsyncIterator[Sequence[StoredEntry]]:
        """All rows of entries."""
        snapshot = self._shards.of_key(key)
        first = 0
        while True:
            found = await snapshot.rows(
                statement("inspect_messages", key=key, first=first, limit=_RUN)
            )
            for run in snapshot.sound_part("message", entry_of, found):
                yield run
            if len(found) < _RUN:
                return
            first = found[-1][0] + 1

    async def known_ids(self, key: ConversationKey) -> AsyncIterator[Sequence[KnownId]]:
        """All idempotency rows."""
        snapshot = self._shards.of_key(key)
        last: tuple[bytes, bytes] | None = None
        while True:
            sender, name = last or (b"", b"")
            found = await snapshot.rows(
                statement("inspect_known_ids", key=key, sender=sender, id=name, limit=_RUN)
            )
            fresh = (row for row in found if row[:2] != last)
            for run in snapshot.sound_part("idempotency", _known_id_of, fresh):
                yield run
            if len(found) < _RUN:
                return
            last = found[-1][:2]

    async def listings(self, key: ConversationKey) -> Sequence[Listing]:
        """The lines of users' lists that name the key, and those that are still to be told."""
        text = statement("inspect_listings", key=key)
        listed = [
            listing
            for snapshot in self._shards.all
            for listing in snapshot.records(
                "user_conversation", _listing_of, await snapshot.rows(text)
            )
        ]
        users = {listing.user for listing in listed}
        waiting = {line.user: line for line in (await self._outbox()).get(key, ())}
        return [*listed, *(line for user, line in waiting.items() if user not in users)]

    async def offsets(self, key: ConversationKey) -> Sequence[OffsetMove]:
        """The read offsets of all endpoints."""

        def offset_of(row: Row) -> OffsetMove:
            user, endpoint = _texts(row[0], row[1])
            return OffsetMove(key, UserId(user), EndpointId(endpoint), Seq(row[2]))

        text = statement("inspect_offsets", key=key)
        return [
            move
            for snapshot in self._shards.all
            for move in snapshot.records("endpoint_offset", offset_of, await snapshot.rows(text))
        ]

    async def _outbox(self) -> dict[ConversationKey, list[Listing]]:
        """What is still to be told, by key: there is no index, and it is little."""
        if self._waiting is None:
            waiting: dict[ConversationKey, list[Listing]] = {}
            for snapshot in self._shards.all:
                for row in await snapshot.rows(statement("inspect_outbox")):
                    line = snapshot.record("outbox", _listing_of, (*row[1:], 0))
                    waiting.setdefault(ConversationKey(row[0]), []).append(line)
            self._waiting = waiting
        return self._waiting


class MysqlInspection:
    """The hot databases, each as of one moment, between `async with` and its end.

    `async with MysqlInspection(settings) as hot:` gives a `ports.inspection.HotInspection`.
    While it is open, the servers keep old row versions that it may ask for. Raises
    `StorageUnavailable` if a database does not answer, `ConfigInvalid` unless the settings
    give each shard to one database; a session that is lost is not opened again, since it
    would see another moment.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> HotInspector:
        async with AsyncExitStack() as stack:
            snapshots = []
            for place in self._settings.databases:
                snapshots.append(await _Snapshot.open(self._settings, place))
                stack.push_async_callback(snapshots[-1].close)
            inspector = HotInspector(snapshots)
            self._stack = stack.pop_all()
        return inspector

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()


def _texts(*columns: bytes) -> tuple[str, ...]:
    """Columns that hold ids."""
    try:
        return tuple(column.decode() for column in columns)
    except UnicodeDecodeError:
        raise DataDamaged(f"{columns!r} are no ids.") from None


def _user_of(row: Row) -> UserId:
    return UserId(*_texts(row[0]))


def _known_id_of(row: Row) -> KnownId:
    return KnownId(_user_of(row), long_id(row[1]), Seq(row[2]))


def _listing_of(row: Row) -> Listing:
    user, conversation = _texts(row[0], row[1])
    return Listing(UserId(user), ConversationId(conversation), row[2])
