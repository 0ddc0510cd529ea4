"""Columns of the tables and the values of the model that they hold.

Rows are written out in SQL by hand: made of literals one by one, they cost an append more
than all its decisions.
"""

from collections.abc import Sequence
from typing import Any

from trunkline.adapters.mysql.literals import literal
from trunkline.core.compact import KIND_NUMBERS, kind_of, long_id, short_id
from trunkline.core.digest import from_bytes
from trunkline.errors import DataDamaged
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Member,
    Seq,
    StoredEntry,
    UserId,
)

Row = Sequence[Any]
CONVERSATION_COLUMNS = 12
_KINDS: dict[str, str] = {kind: literal(kind) for kind in ConversationKind}


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


def conversation_row(c: Conversation) -> str:
    """The row of a conversation in SQL."""
    return (
        f"({c.key},x'{c.id.encode().hex()}',{_KINDS[c.kind]},x'{c.wrapped_key.hex()}',{c.head},"
        f"{c.countable},x'{c.digest:032x}',{c.archived_up_to},{c.trimmed_up_to},"
        f"{c.membership_version},{c.member_count},x'{c.sealed_name.hex()}')"
    )


def member_of(row: Row) -> Member:
    """The member of a row, whose first column is the conversation's key."""
    try:
        return Member(
            UserId(row[1].decode()), Seq(row[2]), from_bytes(row[3]), row[4], Seq(row[5]),
            from_bytes(row[6]), row[7], Seq(row[8]), row[9], bytes(row[10]),
        )  # fmt: skip
    except UnicodeDecodeError:
        raise DataDamaged(f"The conversation {row[0]:#018x} has the member {row[1]!r}.") from None


def member_row(key: ConversationKey, m: Member) -> str:
    """The row of a member in SQL."""
    return (
        f"({key},x'{m.user.encode().hex()}',{m.visible_from},x'{m.digest_before:032x}',"
        f"{m.countable_before},{m.left_at},x'{m.left_digest:032x}',{m.left_countable},{m.marker},"
        f"{m.marker_countable},x'{m.mac.hex()}')"
    )


def entry_of(row: Row) -> StoredEntry:
    """The entry of a row without its key."""
    try:
        return StoredEntry(
            Seq(row[0]), UserId(row[1].decode()), long_id(row[2]), kind_of(row[3]),
            row[4], Seq(row[5] or 0), row[6], bytes(row[7]), bytes(row[8]), bytes(row[9]),
        )  # fmt: skip
    except UnicodeDecodeError:
        raise DataDamaged(f"Entry {row[0]} is of {row[1]!r} and has the id {row[2]!r}.") from None


def entry_row(key: ConversationKey, e: StoredEntry) -> str:
    """The row of an entry in SQL."""
    return (
        f"({key},{e.seq},x'{e.sender.encode().hex()}',x'{short_id(e.client_message_id).hex()}',"
        f"{KIND_NUMBERS[e.kind]},{e.time_ms},{e.refers_to or 'NULL'},{e.countable},"
        f"x'{e.entry_hash.hex()}',x'{e.digest.hex()}',x'{e.sealed.hex()}')"
    )


def known_id_row(key: ConversationKey, sender: UserId, short: bytes, seq: Seq, stamp: int) -> str:
    """The idempotency row of an entry in SQL, its client message id in its short form."""
    return f"({key},x'{sender.encode().hex()}',x'{short.hex()}',{seq},{stamp})"


def _conversation_kind(column: bytes) -> ConversationKind:
    try:
        return ConversationKind(column.decode())
    except ValueError:
        raise DataDamaged(f"The database holds a conversation of kind {column!r}.") from None
