"""A conversation and a member as stores write them: MessagePack has no integers of 128 bits."""

import msgspec

from trunkline.core import digest as digests
from trunkline.model import (
    NO_DIGEST,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    Member,
    Seq,
    UserId,
)


class ConversationRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`model.Conversation` with its digest as bytes."""

    key: ConversationKey
    id: ConversationId
    kind: ConversationKind
    wrapped_key: bytes
    head: Seq
    countable: int
    digest: bytes
    archived_up_to: Seq
    trimmed_up_to: Seq
    membership_version: int
    member_count: int
    sealed_name: bytes


class MemberColumns(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`model.Member` with its digests as bytes, without its MAC."""

    user: UserId
    visible_from: Seq
    digest_before: bytes
    countable_before: int
    left_at: Seq
    left_digest: bytes
    left_countable: int
    marker: Seq
    marker_countable: int


class MemberRow(MemberColumns, array_like=True, frozen=True, gc=False):
    """The same with it; rows of the first version have none."""

    mac: bytes = b""


def conversation_row(c: Conversation) -> ConversationRow:
    """The row of a conversation."""
    return ConversationRow(
        c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, digest_bytes(c.digest),
        c.archived_up_to, c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    )  # fmt: skip


def conversation_of(row: ConversationRow) -> Conversation:
    """The inverse of `conversation_row`."""
    return Conversation(
        row.key, row.id, row.kind, row.wrapped_key, row.head, row.countable,
        digests.from_bytes(row.digest), row.archived_up_to, row.trimmed_up_to,
        row.membership_version, row.member_count, row.sealed_name,
    )  # fmt: skip


def member_row(m: Member) -> MemberRow:
    """The row of a member."""
    return MemberRow(
        m.user, m.visible_from, digest_bytes(m.digest_before), m.countable_before, m.left_at,
        digest_bytes(m.left_digest), m.left_countable, m.marker, m.marker_countable, m.mac,
    )  # fmt: skip


def member_of(row: MemberColumns, mac: bytes) -> Member:
    """The inverse of `member_row`."""
    return Member(
        row.user, row.visible_from, digests.from_bytes(row.digest_before), row.countable_before,
        row.left_at, digests.from_bytes(row.left_digest), row.left_countable, row.marker,
        row.marker_countable, mac,
    )  # fmt: skip


def digest_bytes(digest: Digest) -> bytes:
    """16 bytes, or none for the digest of nothing."""
    return digests.to_bytes(digest) if digest != NO_DIGEST else b""
