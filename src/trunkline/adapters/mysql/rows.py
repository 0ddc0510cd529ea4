"""Columns of the tables and the values of the model that they hold."""

from collections.abc import Sequence
from typing import Any

from trunkline.adapters.mysql.literals import Value
from trunkline.core.digest import from_bytes, to_bytes
from trunkline.errors import DataDamaged
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Kind,
    Member,
    Seq,
    StoredEntry,
    UserId,
)

Row = Sequence[Any]
CONVERSATION_COLUMNS = 12


def conversation_of(row: Row) -> Conversation:
    """The conversation of a row; like all of these it raises `DataDamaged` if that is none."""
    try:
        return Conversation(
            ConversationKey(row[0]), ConversationId(row[1].decode()), _conversation_kind(row[2]),
            bytes(row[3]), Seq(row[4]), row[5], from_bytes(row[6]), Seq(row[7]), Seq(row[8]),
            row[9], row[10], bytes(row[11]),
        )  # fmt: skip
    except UnicodeDecodeError:
        raise DataDamaged(f"The conversation {row[0]:#018x} has the id {row[1]!r}.") from None


def conversation_columns(c: Conversation) -> tuple[Value, ...]:
    """The row of a conversation."""
    return (
        c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, to_bytes(c.digest),
        c.archived_up_to, c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    )  # fmt: skip


def member_of(row: Row) -> Member:
    """The member of a row, whose first column is the conversation's key."""
    try:
        return Member(
            UserId(row[1].decode()), Seq(row[2]), from_bytes(row[3]), row[4], Seq(row[5]),
            from_bytes(row[6]), row[7], Seq(row[8]), row[9],
        )  # fmt: skip
    except UnicodeDecodeError:
        raise DataDamaged(f"The conversation {row[0]:#018x} has the member {row[1]!r}.") from None


def member_columns(key: ConversationKey, m: Member) -> tuple[Value, ...]:
    """The row of a member."""
    return (
        key, m.user, m.visible_from, to_bytes(m.digest_before), m.countable_before, m.left_at,
        to_bytes(m.left_digest), m.left_countable, m.marker, m.marker_countable,
    )  # fmt: skip


def entry_of(row: Row) -> StoredEntry:
    """The entry of a row without its key."""
    try:
        return StoredEntry(
            Seq(row[0]), UserId(row[1].decode()), ClientMessageId(row[2].decode()), _kind(row[3]),
            row[4], Seq(row[5]), row[6], bytes(row[7]), bytes(row[8]), bytes(row[9]),
        )  # fmt: skip
    except UnicodeDecodeError:
        raise DataDamaged(f"Entry {row[0]} is of {row[1]!r} and has the id {row[2]!r}.") from None


def entry_columns(key: ConversationKey, e: StoredEntry) -> tuple[Value, ...]:
    """The row of an entry."""
    return (
        key, e.seq, e.sender, e.client_message_id, e.kind, e.time_ms, e.refers_to, e.countable,
        e.entry_hash, e.digest, e.sealed,
    )  # fmt: skip


def _conversation_kind(column: bytes) -> ConversationKind:
    try:
        return ConversationKind(column.decode())
    except ValueError:
        raise DataDamaged(f"The database holds a conversation of kind {column!r}.") from None


def _kind(column: bytes) -> Kind:
    try:
        return Kind(column.decode())
    except ValueError:
        raise DataDamaged(f"The database holds an entry of kind {column!r}.") from None
