"""An audit is silent about sound stores and names what is wrong with others (I1 to I14)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from held_records import FixedClock, Held, a_keyring, a_lively_group
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.adapters.keyring import KeyringSealer
from trunkline.core import segments
from trunkline.core.auditing import INVARIANTS
from trunkline.model import (
    ClientMessageId,
    ConversationId,
    ConversationKind,
    EndpointId,
    Kind,
    Member,
    OffsetMove,
    Seq,
    UserId,
)
from trunkline.ports.inspection import KnownId, Listing, StoreFault
from trunkline.services.audit import Audit


def bent(data: bytes) -> bytes:
    """The same bytes with one bit flipped in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes((data[middle] ^ 4,)) + data[middle + 1 :]


async def test_sound_stores_give_no_finding_and_every_entry_is_counted_once() -> None:
    held = a_lively_group()

    report = await held.audit()

    assert report.findings == ()
    assert report.sound
    assert (report.counted.entries, report.counted.conversations) == (30, 1)
    assert (report.counted.hot_entries, report.counted.cold_entries) == (18, 20)
    assert (report.counted.members, report.counted.offsets) == (4, 2)


async def test_a_sound_single_conversation_gives_no_finding() -> None:
    held = Held("single:3:ann3:bob")
    held.append("ann", Kind.MESSAGE, body="hello", users=["ann", "bob"], name="ann-bob")
    held.append("bob", Kind.MESSAGE, body="good day")

    report = await held.audit()

    assert report.findings == ()
    assert report.counted.entries == 3


def swap(held: Held, one: int, other: int) -> None:
    first, second = (msgspec.structs.asdict(held.entry(seq)) for seq in (one, other))
    del first["seq"], second["seq"]
    held.change_entry(one, **second)
    held.change_entry(other, **first)


def swap_contents(held: Held) -> None:
    first, second = held.entry(25), held.entry(26)
    held.change_entry(25, sealed=second.sealed, entry_hash=second.entry_hash)
    held.change_entry(26, sealed=first.sealed, entry_hash=first.entry_hash)


def forge_overlap(held: Held) -> None:
    """A second segment over 1..20 with another content, rightly sealed."""
    assert held.row is not None
    cipher = held.sealer.cipher(held.row.wrapped_key, held.row.place)
    part = segments.open_segment(held.row, held.cold.kept[0], cipher)
    entries = part.entries[:5]
    entries[4] = msgspec.structs.replace(entries[4], body="never said")
    held.cold.kept.append(segments.seal(held.row, entries, 0, cipher))


def cut_segment(held: Held, first: int) -> None:
    """The segment over 1..20 is replaced by one that begins later."""
    assert held.row is not None
    cipher = held.sealer.cipher(held.row.wrapped_key, held.row.place)
    part = segments.open_segment(held.row, held.cold.kept[0], cipher)
    before = sum(e.kind is Kind.MESSAGE for e in part.entries[: first - 1])
    held.cold.kept[0] = segments.seal(held.row, part.entries[first - 1 :], before, cipher)


def bend_segment(held: Held) -> None:
    segment = held.cold.kept[0]
    held.cold.kept[0] = msgspec.structs.replace(segment, sealed=bent(segment.sealed))


def miscount_segment(held: Held) -> None:
    assert held.row is not None
    cipher = held.sealer.cipher(held.row.wrapped_key, held.row.place)
    part = segments.open_segment(held.row, held.cold.kept[0], cipher)
    held.cold.kept[0] = segments.seal(held.row, part.entries, 3, cipher)


def change_cold_key(held: Held, wrapped_key: bytes, **fields: object) -> None:
    """The conversation in the cold tier's metadata is under another key."""
    about = held.cold.about[held.key]
    row = msgspec.structs.replace(about.conversation, wrapped_key=wrapped_key, **fields)
    held.cold.about[held.key] = msgspec.structs.replace(about, conversation=row)


async def test_a_key_that_is_wrapped_anew_in_one_tier_gives_no_finding() -> None:
    """A rotation is under way, or was cut short: it is the same data key."""
    held = a_lively_group()
    change_cold_key(held, held.sealer.rewrapped(held.fresh.wrapped_key, held.row.place))

    assert (await held.audit()).findings == ()


async def test_a_shredded_conversation_is_counted_and_is_no_damage() -> None:
    """Hashes and digests are compared all the same."""
    held = a_lively_group()
    held.change_row(wrapped_key=b"", sealed_name=b"")
    change_cold_key(held, b"", sealed_name=b"")

    report = await held.audit()

    assert report.findings == ()
    assert report.counted.shredded == 1
    held.change_entry(26, digest=bytes(16))
    assert [finding.code for finding in (await held.audit()).findings] == ["digest_wrong"]


def drop_lines(held: Held) -> None:
    held.lines = held.lines[1:]


def forge_metadata(held: Held) -> None:
    about = held.cold.about[held.key]
    members = (msgspec.structs.replace(about.members[0], marker_countable=99), *about.members[1:])
    held.cold.about[held.key] = msgspec.structs.replace(about, members=members)


def write_as_outsider(held: Held) -> None:
    """An entry, rightly sealed, of somebody whom no entry made a member."""
    eve = UserId("eve")
    held.people[eve] = held.sealer.macs.seal(held.key, Member(eve, Seq(1)))
    held.append("eve", Kind.MESSAGE, body="let me in")
    del held.people[eve]


def make_member(held: Held) -> None:
    """A row that was put there by somebody without a key: a copy of another's."""
    eve = UserId("eve")
    held.people[eve] = msgspec.structs.replace(held.people[UserId("ann")], user=eve)


DAMAGES: dict[str, tuple[Callable[[Held], object], str]] = {
    "a deleted row": (lambda h: h.drop_entry(25), "hole"),
    "a deleted row that cold still has": (lambda h: h.drop_entry(15), "hole"),
    "the first hot row deleted": (lambda h: h.drop_entry(13), "hole"),
    "the last row deleted": (lambda h: h.drop_entry(30), "hole"),
    "a member's row that somebody else wrote": (make_member, "mac_wrong"),
    "a row twice": (lambda h: h.rows.insert(13, h.rows[12]), "double"),
    "an entry of an outsider": (write_as_outsider, "sender_no_member"),
    "a sealed body with a bit flipped": (
        lambda h: h.change_entry(25, sealed=bent(h.entry(25).sealed)),
        "seal_broken",
    ),
    "a sender changed": (lambda h: h.change_entry(25, sender=UserId("cid")), "seal_broken"),
    "a time changed": (lambda h: h.change_entry(25, time_ms=5), "seal_broken"),
    "a target changed": (lambda h: h.change_entry(25, refers_to=3), "seal_broken"),
    "a kind changed": (lambda h: h.change_entry(25, kind=Kind.RENAMED), "seal_broken"),
    "an entry's client message id changed": (
        lambda h: h.change_entry(25, client_message_id=ClientMessageId("x")),
        "seal_broken",
    ),
    "two swapped rows": (lambda h: swap(h, 25, 26), "seal_broken"),
    "two swapped contents": (swap_contents, "seal_broken"),
    "an entry hash with a bit flipped": (
        lambda h: h.change_entry(25, entry_hash=bent(h.entry(25).entry_hash)),
        "entry_hash_wrong",
    ),
    "a running digest with a bit flipped": (
        lambda h: h.change_entry(25, digest=bent(h.entry(25).digest)),
        "digest_wrong",
    ),
    "a running count changed": (lambda h: h.change_entry(25, countable=3), "countable_wrong"),
    "a head lowered": (lambda h: h.change_row(head=29), "head_wrong"),
    "a head raised": (lambda h: h.change_row(head=31), "hole"),
    "a head raised beyond reason": (lambda h: h.change_row(head=1 << 60), "hole"),
    "a conversation's count changed": (lambda h: h.change_row(countable=3), "countable_wrong"),
    "a conversation's digest changed": (lambda h: h.change_row(digest=3), "digest_wrong"),
    "another kind": (
        lambda h: h.change_row(kind=ConversationKind.SINGLE),
        "conversation_row_wrong",
    ),
    "trimmed beyond archived": (
        lambda h: h.change_row(trimmed_up_to=21),
        "conversation_row_wrong",
    ),
    "trimmed raised": (lambda h: h.change_row(trimmed_up_to=15), "hot_range_wrong"),
    "trimmed lowered": (lambda h: h.change_row(trimmed_up_to=10), "hole"),
    "archived raised": (lambda h: h.change_row(archived_up_to=22), "cold_missing"),
    "another shard": (
        lambda h: h.change_row(id=ConversationId("another-room")),
        "shard_wrong",
    ),
    "a wrapped key with a bit flipped": (
        lambda h: h.change_row(wrapped_key=bent(h.fresh.wrapped_key)),
        "keyring_wrong",
    ),
    "a wrapped key that the cold tier still has": (
        lambda h: h.change_row(wrapped_key=b"", sealed_name=b""),
        "cold_metadata_wrong",
    ),
    "a wrapped key that only the hot tier has": (
        lambda h: change_cold_key(h, b""),
        "cold_metadata_wrong",
    ),
    "another data key in the cold tier": (
        lambda h: change_cold_key(h, h.sealer.new_wrapped_key(h.row.place), sealed_name=b""),
        "cold_metadata_wrong",
    ),
    "a name with a bit flipped": (
        lambda h: h.change_row(sealed_name=bent(h.row.sealed_name)),
        "seal_broken",
    ),
    "a name removed": (lambda h: h.change_row(sealed_name=b""), "conversation_row_wrong"),
    "a member count changed": (lambda h: h.change_row(member_count=9), "members_wrong"),
    "a membership version changed": (lambda h: h.change_row(membership_version=9), "members_wrong"),
    "a removed segment": (lambda h: h.cold.kept.clear(), "cold_missing"),
    "a segment that begins later": (lambda h: cut_segment(h, 5), "hole"),
    "a segment with a bit flipped": (bend_segment, "seal_broken"),
    "a segment that counts wrong": (miscount_segment, "countable_wrong"),
    "segments that differ": (forge_overlap, "content_differs"),
    "no cold metadata": (lambda h: h.cold.about.clear(), "cold_metadata_wrong"),
    "cold metadata with another count": (forge_metadata, "cold_metadata_wrong"),
    "a marker raised past head": (lambda h: h.change_member("ann", marker=31), "marker_wrong"),
    "a marker raised": (lambda h: h.change_member("cid", marker=30), "countable_wrong"),
    "a marker lowered": (lambda h: h.change_member("ann", marker=25), "countable_wrong"),
    "a marker below the view": (lambda h: h.change_member("dan", marker=3), "marker_wrong"),
    "a view that begins earlier": (
        lambda h: h.change_member("dan", visible_from=1),
        "members_wrong",
    ),
    "a member's digest changed": (
        lambda h: h.change_member("dan", digest_before=5),
        "digest_wrong",
    ),
    "a member's count changed": (
        lambda h: h.change_member("dan", countable_before=5),
        "countable_wrong",
    ),
    "a member who left made present": (
        lambda h: h.change_member("dan", left_at=0, left_digest=0, left_countable=0),
        "members_wrong",
    ),
    "a departure's digest changed": (
        lambda h: h.change_member("dan", left_digest=5),
        "digest_wrong",
    ),
    "a member removed": (lambda h: h.people.pop(UserId("dan")), "members_wrong"),
    "a line of a list removed": (drop_lines, "list_wrong"),
    "a line of a list for an outsider": (
        lambda h: h.lines.append(Listing(UserId("eve"), h.id, 9)),
        "list_wrong",
    ),
    "an offset past head": (lambda h: h.confirm("bob", 31), "offset_wrong"),
    "an offset past the view": (lambda h: h.confirm("dan", 24), "offset_wrong"),
    "an offset of an outsider": (
        lambda h: h.moves.append(OffsetMove(h.key, UserId("eve"), EndpointId("e"), 1)),
        "offset_wrong",
    ),
    "an idempotency row of another sender": (
        lambda h: h.known.append(KnownId(UserId("eve"), ClientMessageId("c"), 4)),
        "known_id_wrong",
    ),
    "an idempotency row that names no entry": (
        lambda h: h.known.append(KnownId(UserId("ann"), ClientMessageId("c"), 99)),
        "known_id_wrong",
    ),
    "a second idempotency row": (
        lambda h: h.known.append(KnownId(UserId("ann"), ClientMessageId("c"), 24)),
        "known_id_double",
    ),
    "an idempotency row removed": (lambda h: h.known.pop(), "known_id_missing"),
    "no row of the conversation": (lambda h: setattr(h, "row", None), "conversation_missing"),
    "a table that breaks off": (lambda h: setattr(h, "breaks_at", 26), "unreadable"),
    "a file that is damaged": (
        lambda h: h.cold.file_faults.append(StoreFault("cold.db", "A page is bad.")),
        "file_damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found_and_named(damage: str) -> None:
    held = a_lively_group()
    make, code = DAMAGES[damage]
    make(held)

    report = await held.audit()

    assert code in {finding.code for finding in report.findings}, report.findings
    assert all(finding.invariant == INVARIANTS[finding.code] for finding in report.findings)
    assert all(finding.where and finding.what for finding in report.findings)


async def test_one_wrong_row_does_not_make_all_behind_it_wrong() -> None:
    held = a_lively_group()
    held.change_entry(15, sealed=bent(held.entry(15).sealed))

    report = await held.audit()

    assert [f.code for f in report.findings] == ["seal_broken"]


async def test_a_missing_row_is_one_hole_and_the_rest_is_checked_all_the_same() -> None:
    held = a_lively_group()
    held.drop_entry(20)
    held.change_entry(28, sealed=bent(held.entry(28).sealed))

    codes = [finding.code for finding in (await held.audit()).findings]

    assert codes.count("hole") == 1
    assert codes.count("seal_broken") == 1
    assert "digest_wrong" not in codes


async def test_another_keyring_is_named_and_what_needs_no_key_is_checked() -> None:
    held = a_lively_group()
    held.drop_entry(25)
    other = KeyringSealer(a_keyring(seed=8))

    codes = {finding.code for finding in (await held.audit(other)).findings}

    assert {"keyring_wrong", "hole"} <= codes


async def test_without_any_keyring_the_sums_are_checked_all_the_same() -> None:
    held = a_lively_group()
    held.change_entry(26, digest=bent(held.entry(26).digest))

    report = await Audit(held, held.cold, None, FixedClock()).run()

    assert "digest_wrong" in {finding.code for finding in report.findings}


async def test_old_client_message_ids_may_be_forgotten() -> None:
    class LaterClock(FixedClock):
        def now_ms(self) -> int:
            return super().now_ms() + 8 * 86_400_000

    held = a_lively_group()
    held.known.clear()

    report = await Audit(held, held.cold, held.sealer, LaterClock()).run()

    assert report.findings == ()


async def test_findings_are_bounded_and_counted() -> None:
    held = a_lively_group()
    for seq in range(24, 31):
        for _ in range(30):
            held.known.append(KnownId(UserId("ann"), ClientMessageId(f"x{seq}"), seq))

    report = await held.audit()

    assert report.finding_count > 200
    assert len(report.findings) <= 30
    assert report.as_json()["finding_count"] == report.finding_count


@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_whatever_the_planner_makes_is_sound(data: st.DataObject) -> None:
    held = Held("room")
    held.append("u0", Kind.CREATED, users=["u1"], name=data.draw(st.sampled_from([None, "n"])))
    for _ in range(data.draw(st.integers(0, 40))):
        assert held.row is not None
        present = sorted(u for u, m in held.people.items() if not m.left_at)
        absent = sorted({"u0", "u1", "u2", "u3"} - set(present))
        sender = data.draw(st.sampled_from(present))
        kind = data.draw(st.sampled_from(["message", "message", "joined", "left", "renamed"]))
        if kind == "joined" and absent:
            held.append(sender, Kind.JOINED, users=absent[:2])
        elif kind == "left" and len(present) > 1:
            held.append(sender, Kind.LEFT, users=[data.draw(st.sampled_from(present))])
        elif kind == "renamed":
            held.append(sender, Kind.RENAMED, name=data.draw(st.text(max_size=3)))
        else:
            held.append(sender, Kind.MESSAGE, body="x")
        if data.draw(st.integers(0, 5)) == 0:
            archived = data.draw(st.integers(held.row.archived_up_to, held.row.head))
            trim = data.draw(st.integers(held.row.trimmed_up_to, archived))
            held.archive(archived, trim=trim)

    report = await held.audit()

    assert report.findings == ()
    assert held.row is not None
    assert report.counted.entries == held.row.head
