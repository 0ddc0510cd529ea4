"""Questions to the tables' file, from rows to the model; blocking, one thread an instance."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from trunkline.adapters.sqlite.database import connect, translated
from trunkline.adapters.sqlite.sql import schema, statement
from trunkline.core.digest import from_bytes
from trunkline.core.envelope import WRAPPED_HEADER_BYTES, wrapped_header
from trunkline.errors import DataDamaged
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    EndpointId,
    Kind,
    Member,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)

_KEY_OFFSET: Final = 1 << 63
_KINDS: Final = {str(kind): kind for kind in Kind}
_CONVERSATION_KINDS: Final = {str(kind): kind for kind in ConversationKind}
_CONVERSATION_COLUMNS: Final = 12

Row = tuple[Any, ...]
K = TypeVar("K")


def signed(key: ConversationKey) -> int:
    """A key as SQLite holds it: 64 bits with sign, in the same order."""
    return key - _KEY_OFFSET


def unsigned(key: int) -> ConversationKey:
    """The inverse of `signed`."""
    return ConversationKey(key + _KEY_OFFSET)


def conversation_from(row: Row) -> Conversation:
    """A conversation from its columns."""
    return Conversation(
        unsigned(row[0]),
        row[1],
        _kind(_CONVERSATION_KINDS, row[2]),
        row[3],
        row[4],
        row[5],
        from_bytes(row[6]),
        *row[7:_CONVERSATION_COLUMNS],
    )


def member_from(row: Row) -> Member:
    """A member from its columns."""
    return Member(row[0], row[1], from_bytes(row[2]), row[3], row[4], from_bytes(row[5]), *row[6:])


def entry_from(row: Row) -> StoredEntry:
    """An entry from its columns."""
    return StoredEntry(row[0], row[1], row[2], _kind(_KINDS, row[3]), *row[4:])


def _kind(kinds: Mapping[str, K], name: str) -> K:
    try:
        return kinds[name]
    except KeyError:
        raise DataDamaged(f"tables.db holds a kind that does not exist: {name!r}.") from None


class Tables:
    """Reads the tables as of the last transaction of the materialiser."""

    def __init__(self, path: Path, cache_bytes: int) -> None:
        self.file = path.name
        self._connection = connect(path, cache_bytes=cache_bytes, query_only=True)

    @classmethod
    def make(cls, path: Path, cache_bytes: int) -> Self:
        """Opens the file for reading; makes its tables where they do not exist."""
        connection = connect(path)
        try:
            with translated(path.name):
                connection.execute(schema("tables"))
                columns = {row[1] for row in connection.execute(statement("member_columns"))}
                if "mac" not in columns:  # made by the first version
                    connection.execute(statement("member_add_mac"))
        finally:
            connection.close()
        return cls(path, cache_bytes)

    def _all(self, name: str, *values: object) -> list[Row]:
        with translated(self.file):
            return self._connection.execute(statement(name), values).fetchall()

    def _one(self, name: str, *values: object) -> Row | None:
        rows = self._all(name, *values)
        return rows[0] if rows else None

    def watermark(self) -> tuple[int, int]:
        """(commit up to which everything is here, highest version given out up to there)."""
        row = self._one("watermark")
        return (row[0], row[1]) if row else (0, 0)

    def conversation_by_id(self, conversation: ConversationId) -> Conversation | None:
        """The conversation of this id."""
        row = self._one("conversation_by_id", conversation)
        return conversation_from(row) if row else None

    def conversation_by_key(self, key: ConversationKey) -> Conversation | None:
        """The conversation of this key."""
        row = self._one("conversation_by_key", signed(key))
        return conversation_from(row) if row else None

    def rows(self, keys: Sequence[ConversationKey]) -> list[Conversation]:
        """Those conversations of these keys that exist."""
        return [row for key in keys if (row := self.conversation_by_key(key)) is not None]

    def member(self, key: ConversationKey, user: UserId) -> Member | None:
        """One member of a conversation."""
        row = self._one("member", signed(key), user)
        return member_from(row) if row else None

    def members(self, key: ConversationKey) -> list[Member]:
        """All members, present and gone."""
        return [member_from(row) for row in self._all("members", signed(key))]

    def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> list[tuple[Conversation, Member]]:
        """Conversations of these ids that know the user, with the user's row."""
        asked = msgspec.json.encode(list(ids)).decode()
        return [
            (conversation_from(row), member_from(row[_CONVERSATION_COLUMNS:]))
            for row in self._all("views", asked, user)
        ]

    def highest_client_message_id(self, key: ConversationKey, sender: UserId) -> ClientMessageId:
        """The highest id of this sender, by its bytes; empty if there is none."""
        row = self._one("highest_client_message_id", signed(key), sender)
        return ClientMessageId(row[0] if row and row[0] is not None else "")

    def known(
        self, key: ConversationKey, sender: UserId, client_message_id: ClientMessageId
    ) -> Seq | None:
        """The seq that a client message id got (I6)."""
        row = self._one("known", signed(key), sender, client_message_id)
        return Seq(row[0]) if row else None

    def entries(self, key: ConversationKey, after: Seq, up_to_inclusive: Seq) -> list[StoredEntry]:
        """What is here of a range, oldest first."""
        rows = self._all("messages", signed(key), after, up_to_inclusive)
        return [entry_from(row) for row in rows]

    def part(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> tuple[Conversation | None, list[StoredEntry]]:
        """The conversation's row and what is here of a range, as of one moment."""
        with translated(self.file):
            self._connection.execute("BEGIN")
            try:
                row = self.conversation_by_key(key)
                return row, self.entries(key, after, up_to_inclusive)
            finally:
                self._connection.execute("COMMIT")

    def conversations_of(self, user: UserId, changed_after: int) -> list[UserConversation]:
        """The user's list with a version > `changed_after`."""
        rows = self._all("conversations_of", user, changed_after)
        return [UserConversation(row[0], unsigned(row[1]), row[2]) for row in rows]

    def offsets(self, user: UserId, endpoint: EndpointId) -> dict[ConversationKey, Seq]:
        """An endpoint's read offsets."""
        return {unsigned(row[0]): Seq(row[1]) for row in self._all("offsets", user, endpoint)}

    def wrapped_headers(self) -> list[tuple[bytes, int]]:
        """What wrapped keys begin with, and how many begin so."""
        return self._all("wrapped_headers", WRAPPED_HEADER_BYTES)

    def wrapped_otherwise(
        self, kek_id: int, after: ConversationKey | None, limit: int
    ) -> list[Conversation]:
        """Conversations above a key that another KEK wraps, and that are not shredded."""
        least = -_KEY_OFFSET if after is None else signed(after) + 1
        header = (WRAPPED_HEADER_BYTES, wrapped_header(kek_id))
        rows = self._all("wrapped_otherwise", least, *header, limit)
        return [conversation_from(row) for row in rows]

    def unarchived(self) -> Mapping[ConversationKey, int]:
        """Conversations whose head is beyond what is archived, and the time of the first entry
        beyond, milliseconds since 1970; oldest first.
        """
        return {unsigned(row[0]): row[1] or 0 for row in self._all("unarchived")}

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()
