"""What a batch of drafts becomes: the same for every store, and however it is cut (I1, I3, I6)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache

import msgspec
import pytest
from core_strategies import sealer
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.core import digest as digests
from trunkline.core.appending import (
    LOST_AT_ONCE,
    Accepted,
    AppendPlanner,
    AppendState,
    ConversationWrite,
    Decision,
    Known,
    Outcome,
    Refused,
    move_markers,
)
from trunkline.core.envelope import associated_data_of, opened
from trunkline.core.ids import single_conversation_id
from trunkline.core.views import view_of
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    Entry,
    FreshKey,
    Kind,
    Member,
    Seq,
    StoredEntry,
    UserId,
    place_of,
)

GROUP_MEMBERS = 4
SEALER = sealer()
G = ConversationId("g")
USERS = [UserId(user) for user in ("ann", "bob", "José", "jose")]


@cache
def wrapped_key(key: ConversationKey, conversation: str) -> bytes:
    return SEALER.new_wrapped_key(place_of(key, ConversationId(conversation)))


class Book:
    """A store in a few dicts, which takes over decisions as an adapter does."""

    def __init__(self, *, members: int = GROUP_MEMBERS, membership_bytes: int = 64 * 1024) -> None:
        self.rows: dict[ConversationId, Conversation] = {}
        self.members: dict[ConversationId, dict[UserId, Member]] = {}
        self.entries: dict[ConversationId, list[StoredEntry]] = {}
        self.shown: dict[ConversationId, list[Entry]] = {}
        self.known: dict[tuple[ConversationId, UserId, ClientMessageId], Seq] = {}
        self._planner = AppendPlanner(
            SEALER.cipher,
            SEALER.macs,
            group_members=members,
            membership_bytes=membership_bytes,
            joins=lambda draft, users: self.joined.append((draft.client_message_id, *users)),
        )
        self.joined: list[tuple[str, ...]] = []

    def append(self, *drafts: Draft) -> list[Outcome]:
        decision = self.decide(*drafts)
        for write in decision.writes:
            self._take_over(write)
        return decision.outcomes

    def decide(self, *drafts: Draft) -> Decision:
        state = AppendState(dict(self.rows), {c: dict(m) for c, m in self.members.items()},
                            dict(self.known))  # fmt: skip
        return self._planner.decide(drafts, state)

    def _take_over(self, write: ConversationWrite) -> None:
        row = write.conversation
        assert write.created == (row.id not in self.rows)
        self.rows[row.id] = row
        members = self.members.setdefault(row.id, {})
        members.update(write.members)
        move_markers(members, write.entries)
        self.entries.setdefault(row.id, []).extend(write.entries)
        self.shown.setdefault(row.id, []).extend(write.opened)
        for entry in write.entries:
            if entry.client_message_id:
                self.known[row.id, entry.sender, entry.client_message_id] = entry.seq


def draft(
    kind: Kind,
    message_id: str,
    sender: str = "ann",
    conversation: str = "g",
    *,
    users: Iterable[str] = (),
    body: str = "",
    name: str | None = None,
    creates: bool = False,
) -> Draft:
    key = ConversationKey(len(conversation))
    fresh = FreshKey(key, wrapped_key(key, conversation))
    return Draft(
        ConversationId(conversation), UserId(sender), ClientMessageId(message_id), kind, 1_000,
        body, users=tuple(UserId(user) for user in users), name=name,
        fresh=fresh if creates else None,
    )  # fmt: skip


def create(
    message_id: str = "c", *users: str, sender: str = "ann", name: str | None = None
) -> Draft:
    return draft(Kind.CREATED, message_id, sender, users=users, name=name, creates=True)


def message(message_id: str, sender: str = "ann", body: str = "hello") -> Draft:
    return draft(Kind.MESSAGE, message_id, sender, body=body)


def first_send(message_id: str, sender: str, to: str) -> Draft:
    single = single_conversation_id(UserId(sender), UserId(to))
    return draft(Kind.MESSAGE, message_id, sender, single, users=(sender, to), creates=True)


def codes(outcomes: Sequence[Outcome]) -> list[int | str]:
    """Seqs of what was accepted, negative ones of what was known, codes of what was refused."""
    found: list[int | str] = []
    for outcome in outcomes:
        match outcome:
            case Accepted(seq=seq):
                found.append(int(seq))
            case Known(seq=seq):
                found.append(-seq)
            case Refused(error=error):
                found.append(error.code)
    return found


def lost(up_to: int, sender: str = "ann") -> Draft:
    return msgspec.structs.replace(draft(Kind.LOST, f"lost {up_to}", sender), lost_up_to=Seq(up_to))


def test_lost_entries_fill_a_conversation_up_to_what_was_shown_and_count_for_nobody() -> None:
    book = Book()
    book.append(create("c", "bob"), message("1"))
    assert codes(book.append(lost(5))) == [5]
    assert codes(book.append(message("2"))) == [6]
    kinds = [(e.kind, e.sender, e.client_message_id) for e in book.entries[ConversationId("g")]]
    assert kinds[2:5] == [(Kind.LOST, "", "")] * 3
    assert book.rows[ConversationId("g")].countable == 2
    check(book)


def test_nothing_is_lost_below_the_head_and_only_members_say_so() -> None:
    book = Book()
    book.append(create("c", "bob"), message("1"))
    assert codes(book.append(lost(2), lost(1))) == [2, 2]
    assert book.rows[ConversationId("g")].head == 2
    assert codes(book.append(lost(9, "mallory"))) == ["not_member"]


def test_one_draft_loses_only_so_many_and_the_next_goes_on() -> None:
    book = Book()
    book.append(create("c", "bob"))
    assert codes(book.append(lost(1_000))) == [1 + LOST_AT_ONCE]
    assert codes(book.append(lost(1_001))) == [1 + 2 * LOST_AT_ONCE]


@st.composite
def any_drafts(draw: st.DrawFn) -> list[Draft]:
    """Drafts of all kinds, many of them not allowed, with few ids so that resends happen."""
    found = []
    for _ in range(draw(st.integers(1, 14))):
        sender, other = draw(st.permutations(USERS))[:2]
        message_id = draw(st.sampled_from("123456789"))
        named = draw(st.lists(st.sampled_from(USERS), max_size=3))
        asked = [kind for kind in Kind if kind is not Kind.LOST]
        kind = draw(st.sampled_from([*asked, Kind.MESSAGE, Kind.MESSAGE]))
        where = draw(st.sampled_from(["g", "g", "h", "single"]))
        if where == "single":
            found.append(first_send(message_id, sender, other))
        else:
            found.append(
                draft(
                    kind, message_id, sender, where, users=named, body="b",
                    name="n" if kind in (Kind.CREATED, Kind.RENAMED) else None,
                    creates=kind is Kind.CREATED,
                )
            )  # fmt: skip
    return found


def check(book: Book) -> None:
    """I1, I14 and the counts of every conversation and member of a book."""
    for identity, row in book.rows.items():
        stored, shown = book.entries[identity], book.shown[identity]
        cipher = SEALER.cipher(row.wrapped_key, row.place)
        entry_hash = digests.hasher(identity, cipher.digest_key)
        assert [e.seq for e in stored] == list(range(1, row.head + 1))
        assert shown == [
            opened(e, cipher.open(e.sealed, associated_data_of(identity, e))) for e in stored
        ]
        running, countable = 0, 0
        for at_rest, entry in zip(stored, shown, strict=True):
            assert at_rest.entry_hash == digests.hash_entry(entry, entry_hash)
            running = digests.add(running, at_rest.entry_hash)
            countable += entry.kind is Kind.MESSAGE
            assert (at_rest.digest, at_rest.countable) == (digests.to_bytes(running), countable)
        assert (row.digest, row.countable) == (running, countable)
        present = [m for m in book.members[identity].values() if not m.left_at]
        assert row.member_count == len(present) <= GROUP_MEMBERS
        for member in book.members[identity].values():
            view = view_of(row, member)
            seen = [e for e in shown if view.first <= e.seq <= view.last]
            assert view.digest == digests.total(digests.hash_entry(e, entry_hash) for e in seen)
            unread = [e for e in seen if e.kind is Kind.MESSAGE and e.seq > view.marker]
            assert view.unread == len(unread)
            assert view.first - 1 <= view.marker <= view.last


@given(any_drafts(), st.lists(st.integers(0, 14)))
@example(
    [create("1", "bob"), message("2", "bob"), draft(Kind.LEFT, "3", users=["bob"]),
     draft(Kind.JOINED, "4", users=["bob"]), message("5", "bob")], [],
)  # fmt: skip
def test_however_drafts_are_cut_into_batches_they_become_the_same(
    drafts: list[Draft], cuts: list[int]
) -> None:
    """A commit takes whatever waits: where it ends must not show."""
    whole, cut = Book(), Book()
    outcomes = whole.append(*drafts)
    bounds = sorted({0, len(drafts), *(c for c in cuts if c <= len(drafts))})
    pieces = [drafts[a:b] for a, b in itertools.pairwise(bounds)]
    assert codes([o for piece in pieces for o in cut.append(*piece)]) == codes(outcomes)
    check(whole)
    check(cut)
    assert cut.shown == whole.shown
    assert cut.members == whole.members
    assert {c: msgspec.structs.replace(r, sealed_name=b"") for c, r in cut.rows.items()} == {
        c: msgspec.structs.replace(r, sealed_name=b"") for c, r in whole.rows.items()
    }


@given(any_drafts())
def test_a_batch_sent_twice_answers_with_the_first_seqs_and_changes_nothing(
    drafts: list[Draft],
) -> None:
    """I6."""
    book = Book()
    first = codes(book.append(*drafts))
    again = book.decide(*[d for d, o in zip(drafts, first, strict=True) if isinstance(o, int)])
    assert codes(again.outcomes) == [-abs(o) for o in first if isinstance(o, int)]
    assert again.writes == []


@given(any_drafts(), any_drafts())
def test_a_decision_taken_again_says_the_same(before: list[Draft], drafts: list[Draft]) -> None:
    """A store decides again after a deadlock: nothing may stick to the planner."""
    book = Book()
    book.append(*before)
    first, second = book.decide(*drafts), book.decide(*drafts)
    assert codes(first.outcomes) == codes(second.outcomes)
    assert [w.opened for w in first.writes] == [w.opened for w in second.writes]


def test_a_refused_draft_takes_no_seq() -> None:
    """I1."""
    book = Book()
    outcomes = book.append(create(), message("1"), message("2", "eve"), message("3"))
    assert codes(outcomes) == [1, 2, "not_member", 3]


def test_who_is_not_a_member_cannot_tell_what_exists() -> None:
    """I13."""
    book = Book()
    book.append(create("c", "bob"))
    absent = draft(Kind.MESSAGE, "1", "eve", "h")
    assert codes(book.append(message("1", "eve"), absent)) == ["not_member"] * 2


def test_a_membership_change_counts_from_its_own_entry_on_within_the_batch() -> None:
    """I13."""
    book = Book()
    outcomes = book.append(
        create(),
        message("1", "bob"),
        draft(Kind.JOINED, "2", users=["bob"]),
        message("3", "bob"),
        draft(Kind.LEFT, "4", "bob", users=["bob"]),
        message("5", "bob"),
    )
    assert codes(outcomes) == [1, "not_member", 2, 3, 4, "not_member"]
    check(book)


def test_a_creation_names_its_creator_and_nobody_twice() -> None:
    book = Book()
    book.append(create("c", "bob", "ann", "bob", name="n"))
    assert set(book.members[ConversationId("g")]) == {"ann", "bob"}
    assert book.rows[ConversationId("g")].member_count == 2
    assert book.shown[ConversationId("g")][0].body == '{"users":["ann","bob"],"name":"n"}'


def test_a_group_is_never_fuller_than_allowed() -> None:
    book = Book()
    assert codes(book.append(create("c", "1", "2", "3", "4"))) == ["group_full"]
    assert book.rows == {}
    outcomes = book.append(
        create("c", "1", "2"),
        draft(Kind.JOINED, "j", users=["3", "4"]),
        draft(Kind.JOINED, "k", users=["3", "1"]),
        draft(Kind.JOINED, "l", users=["4"]),
    )
    assert codes(outcomes) == [1, "group_full", 2, "group_full"]
    check(book)


def test_joining_and_leaving_that_change_nobody_are_refused() -> None:
    book = Book()
    outcomes = book.append(
        create("c", "bob"),
        draft(Kind.JOINED, "1", users=["bob"]),
        draft(Kind.LEFT, "2", users=["eve"]),
    )
    assert codes(outcomes) == [1, "invalid_input", "invalid_input"]


def test_a_first_send_writes_the_creation_before_the_message() -> None:
    book = Book()
    assert codes(book.append(first_send("1", "ann", "bob"))) == [2]
    (identity,) = book.rows
    assert [e.kind for e in book.shown[identity]] == [Kind.CREATED, Kind.MESSAGE]
    assert [e.client_message_id for e in book.entries[identity]] == ["", "1"]
    assert {m.user: m.marker for m in book.members[identity].values()} == {"ann": 2, "bob": 0}


@pytest.mark.parametrize("kind", [Kind.JOINED, Kind.LEFT, Kind.RENAMED])
def test_a_single_conversation_keeps_its_members_and_its_name(kind: Kind) -> None:
    book = Book()
    book.append(first_send("1", "ann", "bob"))
    (identity,) = book.rows
    change = draft(kind, "2", "ann", identity, users=["bob"], name="n")
    assert codes(book.append(change)) == ["not_allowed"]


def test_a_sender_has_seen_what_it_sent() -> None:
    """Sending moves the sender's own marker, nobody else's."""
    book = Book()
    book.append(create("c", "bob"))
    book.append(message("1"), message("2", "bob"), message("3"))
    members = book.members[ConversationId("g")]
    assert (members[UserId("ann")].marker, members[UserId("bob")].marker) == (4, 3)
    check(book)


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.JOINED])
@pytest.mark.parametrize("character", ["\x01", '"', "\\", "🦊", "x"])
def test_an_entry_that_names_users_is_bounded_by_the_bytes_that_are_made(
    kind: Kind, character: str
) -> None:
    """JSON makes six bytes of a control character: what counts is what is stored and pushed."""
    book = Book(members=100, membership_bytes=1_000)
    if kind is Kind.JOINED:
        book.append(create("1"))
    before = len(book.shown.get(G, []))
    users = [f"{character * 10}{number}" for number in range(60)]
    outcomes = codes(book.append(draft(kind, "2", users=users, creates=kind is Kind.CREATED)))
    if character == "x":
        assert outcomes == [before + 1]
        assert len(book.shown[G][-1].body.encode()) <= 1_000
    else:
        assert outcomes == ["too_many_users"]
        assert len(book.shown.get(G, [])) == before


def test_who_is_put_somewhere_is_charged_once_a_draft_and_by_who_may_do_so() -> None:
    """A batch that is decided again charges nobody again, a refused draft nobody at all."""
    book = Book()
    added, outsider = draft(Kind.JOINED, "2", users=["bob"]), draft(Kind.JOINED, "3", "jose")
    book.append(create("1"))
    book.decide(added, outsider)
    assert codes(book.append(added, outsider)) == [2, "not_member"]
    assert book.joined == [("1", "ann"), ("2", "bob")]
