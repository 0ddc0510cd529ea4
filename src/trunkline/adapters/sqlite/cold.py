"""The cold store: sealed segments and metadata in a file of their own, synced at each put."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from trunkline.adapters.sqlite.database import PAGE_BYTES, checkpoint, connect, translated
from trunkline.adapters.sqlite.records import MemberRow, member_row
from trunkline.adapters.sqlite.sql import schema, statement
from trunkline.adapters.sqlite.tables import signed, unsigned
from trunkline.core.digest import from_bytes
from trunkline.core.rows import (
    ConversationRow,
    conversation_of,
    conversation_row,
    digest_bytes,
    member_of,
)
from trunkline.errors import DataDamaged, StorageUnavailable, TierUnavailable, TrunklineError
from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq

T = TypeVar("T")
_CHECKPOINT_PAGES = 1_000


class _Metadata(msgspec.Struct, array_like=True, frozen=True, gc=False):
    conversation: ConversationRow
    members: list[MemberRow]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Metadata).decode


class ColdFile:
    """The blocking side; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opens the file; one that does not exist is made."""
        self._file = path.name
        self._connection = connect(
            path, checkpoint_pages=_CHECKPOINT_PAGES, log_bytes=2 * _CHECKPOINT_PAGES * PAGE_BYTES
        )
        try:
            with translated(self._file):
                self._connection.execute(schema("cold"))
        except BaseException:
            self._connection.close()
            raise

    def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """Stores all in one transaction."""
        with translated(self._file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    statement("segment_put"),
                    [
                        (signed(s.key), s.first, s.last, digest_bytes(s.digest), s.sealed)
                        for s in segments
                    ],
                )
                self._connection.executemany(
                    statement("metadata_put"),
                    [(signed(m.conversation.key), _pack_metadata(m)) for m in metadata],
                )
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def read(self, key: ConversationKey, after: Seq, up_to_inclusive: Seq) -> list[Segment]:
        """Segments that hold some of a range, oldest first; they may overlap."""
        with translated(self._file):
            # The longest segment bounds how far back one may begin that reaches into the range.
            ((longest,),) = self._connection.execute(
                statement("segment_longest"), (signed(key),)
            ).fetchall()
            rows = self._connection.execute(
                statement("segments"), (signed(key), after - longest, up_to_inclusive, after)
            ).fetchall()
        return [Segment(unsigned(r[0]), r[1], r[2], from_bytes(r[3]), r[4]) for r in rows]

    def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The metadata of a conversation; raises `DataDamaged` if it does not decode."""
        with translated(self._file):
            rows = self._connection.execute(statement("metadata"), (signed(key),)).fetchall()
        return unpack_metadata(rows[0][0], self._file) if rows else None

    def next_key(self, after: ConversationKey | None) -> ConversationKey | None:
        """The lowest key with a segment, above `after`."""
        with translated(self._file):
            if after is None:
                rows = self._connection.execute(statement("segment_first_key"))
            else:
                rows = self._connection.execute(statement("segment_next_key"), (signed(after),))
            ((key,),) = rows.fetchall()
        return None if key is None else unsigned(key)

    def last_row(self) -> int:
        """A number that rises with every segment that is put."""
        with translated(self._file):
            ((row,),) = self._connection.execute(statement("segment_last_row")).fetchall()
        return int(row)

    def close(self) -> None:
        """Empties the WAL and closes the file."""
        with translated(self._file):
            try:
                checkpoint(self._connection, "TRUNCATE")
            finally:
                self._connection.close()


class SqliteColdStore:
    """A `ports.cold.ColdStore`, on a thread of its own.

    `failure` is the code of the error that the last question ended with, or nothing.
    """

    def __init__(self, file: ColdFile, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread
        self.failure = ""

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """Stores segments and metadata; on disk when it returns."""
        if segments or metadata:
            await self._ask(self._file.put, segments, metadata)

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[Segment]:
        """Every segment that holds some of after+1..up_to_inclusive, oldest first."""
        return await self._ask(self._file.read, key, after, up_to_inclusive)

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata as of its last archive."""
        return await self._ask(self._file.metadata, key)

    async def last_row(self) -> int:
        """A number that rises with every segment that is put."""
        return await self._ask(self._file.last_row)

    async def keys(self) -> AsyncIterator[ConversationKey]:
        """Every conversation that has a segment, in key order."""
        key = await self._ask(self._file.next_key, None)
        while key is not None:
            yield key
            key = await self._ask(self._file.next_key, key)

    async def _ask(self, question: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._thread, question, *arguments)
        except StorageUnavailable as error:
            self.failure = TierUnavailable.code
            raise TierUnavailable(error.detail) from error
        except TrunklineError as error:
            self.failure = error.code
            raise
        self.failure = ""
        return answer


def unpack_metadata(body: bytes, file: str) -> ColdMetadata:
    """The metadata of a row of `file`; raises `DataDamaged` if it does not decode."""
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, TypeError) as error:
        raise DataDamaged(f"{file}: metadata does not decode: {error}.") from error
    return ColdMetadata(
        conversation_of(found.conversation), tuple(member_of(m, m.mac) for m in found.members)
    )


def _pack_metadata(metadata: ColdMetadata) -> bytes:
    return _encode(
        _Metadata(
            conversation_row(metadata.conversation),
            [member_row(member, 0) for member in metadata.members],
        )
    )
