"""Decides whether the rows beside a conversation's entries agree with what a walk found."""

from collections.abc import Iterable, Iterator, Sequence

from trunkline.core.audit_walk import Running, Walk
from trunkline.core.auditing import Problem
from trunkline.core.envelope import name_associated_data
from trunkline.core.ids import shard_hash, shard_of, users_of_single
from trunkline.core.member_macs import MemberMacs
from trunkline.core.sealing import Cipher
from trunkline.errors import SealBroken
from trunkline.model import (
    NO_DIGEST,
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKind,
    Member,
    OffsetMove,
    Seq,
    UserId,
)


def checkpoints(members: Iterable[Member]) -> set[Seq]:
    """The positions whose running values the rows of members name."""
    positions: set[Seq] = set()
    for member in members:
        positions.update((Seq(member.visible_from - 1), member.left_at, member.marker))
    return positions


def check_conversation(conversation: Conversation) -> Iterator[Problem]:
    """The row by itself: kind, shard, the order of its positions."""
    c = conversation
    single = users_of_single(c.id) is not None
    if single is not (c.kind is ConversationKind.SINGLE):
        yield "conversation_row_wrong", f"Its kind is {c.kind}, which its id is not."
    if shard_of(c.key) != shard_hash(c.id):
        yield "shard_wrong", f"Its key {c.key:#018x} is not on the shard of its id."
    if not 0 <= c.trimmed_up_to <= c.archived_up_to <= c.head or c.head < 1:
        yield (
            "conversation_row_wrong",
            (
                f"Trimmed {c.trimmed_up_to}, archived {c.archived_up_to} and head {c.head} "
                "are not in order."
            ),
        )


def check_history(
    conversation: Conversation, members: Sequence[Member], walk: Walk, cipher: Cipher | None
) -> Iterator[Problem]:
    """Row and members against who the entries say is a member, and the name."""
    history = walk.history
    if not history.whole:
        return
    c = conversation
    rows = {m.user: (m.visible_from, m.left_at) for m in members}
    for user in sorted(history.spans.keys() | rows.keys()):
        told, row = history.spans.get(user), rows.get(user)
        if told != row:
            yield "members_wrong", f"Member {user!r} is {_span(row)}, but {_span(told)} by entries."
    if c.member_count != len(history.present):
        yield (
            "members_wrong",
            f"It counts {c.member_count} members, its entries make {len(history.present)}.",
        )
    if c.membership_version != history.version:
        yield (
            "members_wrong",
            (
                f"Its membership version is {c.membership_version}, its entries make "
                f"{history.version}."
            ),
        )
    pair = users_of_single(c.id)
    if pair is not None and set(pair) != rows.keys():
        yield "members_wrong", "Its members are not the two whom its id names."
    if cipher is not None:
        yield from _check_name(c, history.name, cipher)


def check_macs(
    conversation: Conversation, members: Iterable[Member], macs: MemberMacs
) -> Iterator[Problem]:
    """Members' rows were written by who has the keys (I13); of a shredded one it is no matter."""
    for member in members if not conversation.shredded else ():
        if not macs.hold(conversation.key, member):
            yield "mac_wrong", f"The row of the member {member.user!r} does not have its MAC."


def check_member(member: Member, conversation: Conversation, walk: Walk) -> Iterator[Problem]:
    """A member's row against the running values at its positions (I9, I14)."""
    who = f"Member {member.user!r}"
    last = member.left_at or conversation.head
    if not 1 <= member.visible_from <= last <= conversation.head:
        yield "members_wrong", f"{who} sees {member.visible_from} to {last}."
        return
    if not member.visible_from - 1 <= member.marker <= last:
        yield (
            "marker_wrong",
            (
                f"{who} has the read marker {member.marker}, the view is "
                f"{member.visible_from} to {last}."
            ),
        )
    if not member.left_at and (member.left_digest != NO_DIGEST or member.left_countable):
        yield "members_wrong", f"{who} is present, but has the sums of one who left."
    claims = [
        ("where the view begins", Seq(member.visible_from - 1), member.countable_before,
         member.digest_before),
        ("at the read marker", member.marker, member.marker_countable, None),
    ]  # fmt: skip
    if member.left_at:
        claims.append(
            ("where the view ends", member.left_at, member.left_countable, member.left_digest)
        )
    for where, seq, countable, digest in claims:
        running = walk.running.get(seq, Running(countable, digest or NO_DIGEST))
        if countable != running.countable:
            yield (
                "countable_wrong",
                f"{who}: the count {where} ({seq}) is {countable}, not {running.countable}.",
            )
        if digest is not None and digest != running.digest:
            yield "digest_wrong", f"{who}: the digest {where} ({seq}) is not that of the entries."


def check_listings(
    conversation: Conversation,
    members: Sequence[Member],
    listings: Sequence[tuple[UserId, ConversationId]],
) -> Iterator[Problem]:
    """Exactly the members have the conversation in their lists, by its id."""
    users = {member.user for member in members}
    listed = [user for user, _ in listings]
    for user in sorted(users.symmetric_difference(listed)):
        has = "lacks it in the list" if user in users else "has it in the list"
        yield "list_wrong", f"{'Member' if user in users else 'Outsider'} {user!r} {has}."
    if len(set(listed)) != len(listed):
        yield "list_wrong", "Somebody has it in the list twice."
    for user, conversation_id in listings:
        if conversation_id != conversation.id:
            yield "list_wrong", f"In the list of {user!r} it is called {conversation_id!r}."


def check_offsets(
    conversation: Conversation, members: Sequence[Member], offsets: Sequence[OffsetMove]
) -> Iterator[Problem]:
    """Read offsets are members' and lie within their views (I9)."""
    last = {m.user: m.left_at or conversation.head for m in members}
    for move in offsets:
        end = last.get(move.user)
        if end is None:
            yield "offset_wrong", f"{move.user!r} has a read offset, but is no member."
        elif not 0 <= move.seq <= end:
            yield (
                "offset_wrong",
                (
                    f"Endpoint {move.endpoint!r} of {move.user!r} has the read offset "
                    f"{move.seq}, the view ends at {end}."
                ),
            )


def check_metadata(
    conversation: Conversation,
    members: Sequence[Member],
    metadata: ColdMetadata | None,
    walk: Walk,
    cipher: Cipher | None,
    cold_cipher: Cipher | None,
) -> Iterator[Problem]:
    """What the cold tier says of the conversation: of an earlier moment, but true then.

    `cold_cipher`: the opened data key of its metadata; that may be wrapped anew, or not yet.
    """
    code = "cold_metadata_wrong"
    if metadata is None:
        if conversation.archived_up_to:
            yield code, "The cold tier holds entries, but no metadata of it."
        return
    row = metadata.conversation
    if (row.key, row.id, row.kind) != (conversation.key, conversation.id, conversation.kind):
        yield code, "The cold tier's metadata is another conversation's."
        return
    if conversation.shredded is not row.shredded:
        yield code, "One of the tiers still has the wrapped key, the other is shredded."
    elif row.wrapped_key != conversation.wrapped_key and not _same_key(cipher, cold_cipher):
        yield code, "The cold tier's data key is not the hot tier's."
    if row.head > conversation.head or row.membership_version > conversation.membership_version:
        yield code, "The cold tier's metadata is ahead of the conversation."
    if cipher is not None and row.sealed_name:
        yield from ((code, f"Cold: {what}") for _, what in _check_name(row, None, cipher))
    users = {member.user for member in metadata.members}
    if row.membership_version == conversation.membership_version and users != {
        member.user for member in members
    }:
        yield code, "The cold tier's metadata has not the conversation's members."
    for member in metadata.members:
        yield from ((code, f"Cold: {what}") for _, what in check_member(member, conversation, walk))


def _same_key(one: Cipher | None, other: Cipher | None) -> bool:
    """Whether two ciphers are of the same data key; without them nothing can be told."""
    return one is None or other is None or one.digest_key == other.digest_key


def _check_name(conversation: Conversation, name: str | None, cipher: Cipher) -> Iterator[Problem]:
    """The sealed name opens; with `name` given, it is the one that the entries gave."""
    sealed = conversation.sealed_name
    if not sealed:
        if name is not None:
            yield "conversation_row_wrong", "Its entries gave it a name, its row has none."
        return
    try:
        opened = cipher.open(sealed, name_associated_data(conversation.id)).decode()
    except SealBroken:
        yield "seal_broken", "Its name does not open."
        return
    if name is not None and opened != name:
        yield "conversation_row_wrong", "Its name is not the one that its entries gave it."


def _span(span: tuple[Seq, Seq] | None) -> str:
    if span is None:
        return "unknown"
    first, left_at = span
    return f"there from {first} to {left_at}" if left_at else f"there from {first}"
