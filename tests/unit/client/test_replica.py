"""Copies under pushes in any order, losses, doubles and pulls: complete, proven, delivered once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.client.replica import EARLY_ENTRIES_MAX, GAP_SECONDS, Replica
from trunkline.client.store import Changes
from trunkline.core.digest import hash_entry, hasher, to_hex, total, vector_digest
from trunkline.errors import ProtocolError, TrunklineError
from trunkline.model import ConversationId, ConversationKind, Digest, Entry, Seq, UserId
from trunkline.wire.frames import Changed, Run

ROOM = ConversationId("room")
KEY = bytes(32)
ANN, BOB = UserId("ann"), UserId("bob")
HASH = hasher(ROOM, KEY)


def entries(first: int, last: int, sender: UserId = BOB) -> list[Entry]:
    return [Entry(Seq(n), sender, 1000 + n, f"body {n}") for n in range(first, last + 1)]


def digest_of(some: Sequence[Entry]) -> Digest:
    return total(hash_entry(entry, HASH) for entry in some)


def changed(head: int, first: int = 1, **others: int) -> Changed:
    digest = to_hex(digest_of(entries(first, head)))
    return Changed(ROOM, ConversationKind.GROUP, Seq(head), Seq(first), digest, KEY.hex(), **others)  # type: ignore[arg-type]


class Watched:
    """A replica, what it delivered and what it reported."""

    def __init__(self, head: int = 0, first: int = 1) -> None:
        self.delivered: list[int] = []
        self.reported: list[TrunklineError] = []
        self.written: list[int] = []
        self.replica = Replica(
            ANN,
            [],
            0,
            deliver=lambda _, some: self.delivered.extend(entry.seq for entry in some),
            report=self.reported.append,
        )
        self.replica.changed([changed(head, first)])
        self.replica.sync_ended(1)

    def write(self) -> Changes:
        changes = self.replica.take_changes()
        if changes.dropped:
            self.written.clear()
        for _, parts in changes.runs:
            self.written.extend(entry.seq for part in parts for entry in part)
        return changes

    def pull(self, head: int, now: float = 1e9) -> None:
        """Pulls what is behind, as a session does, until nothing is."""
        while behind := self.replica.behind(now):
            after = self.replica.pull_begins([one.conversation for one in behind])
            for conversation, seq in after.items():
                self.replica.pulled(Run(conversation, seq, entries(seq + 1, head)))
                self.replica.pull_ended(conversation, seq, now)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5), st.booleans()), max_size=40),
    st.integers(0, 12),
)
def test_pushes_in_any_order_then_a_pull_make_the_copy_complete_and_each_entry_comes_once(
    pushes: list[tuple[int, int, bool]], synced_head: int
) -> None:
    watched = Watched(synced_head)
    head = synced_head
    for first, length, own in pushes:
        last = first + length - 1
        if own:
            watched.replica.own(ROOM, entries(first, first)[0], 0.0)
            last = first
        else:
            watched.replica.push(ROOM, entries(first, last), 0.0)
        head = max(head, last)
        watched.write()
    watched.pull(head)
    watched.write()
    held = watched.replica.held[ROOM]
    assert held.last == head
    assert held.digest == digest_of(entries(1, head))
    assert watched.delivered == watched.written == list(range(1, head + 1))
    assert watched.reported == []
    vector = watched.replica.vector()
    assert vector.digest == vector_digest(vector.seqs)


def test_of_a_push_that_overlaps_the_copy_only_the_new_part_is_taken() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(1, 3), now=0.0)
    watched.replica.push(ROOM, entries(2, 5), now=0.0)
    assert watched.delivered == [1, 2, 3, 4, 5]
    assert watched.replica.counters.duplicates_dropped == 2
    assert watched.replica.counters.pushed == 5
    assert watched.replica.held[ROOM].digest == digest_of(entries(1, 5))


def test_a_gap_that_closes_by_itself_is_neither_pulled_nor_counted() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(2, 2), now=10.0)
    assert watched.replica.behind(now=10.0) == []
    watched.replica.push(ROOM, entries(1, 1), now=10.0 + GAP_SECONDS / 2)
    assert watched.replica.behind(now=99.0) == []
    assert watched.replica.counters.gaps_seen == 0
    assert watched.delivered == [1, 2]


def test_a_gap_that_stays_is_pulled_after_its_patience_and_counted_once() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(3, 3), now=10.0)
    watched.replica.push(ROOM, entries(5, 5), now=10.0)
    assert watched.replica.next_due(now=10.0) == pytest.approx(GAP_SECONDS)
    watched.pull(2, now=10.0 + GAP_SECONDS)
    watched.pull(5, now=20.0)
    assert watched.replica.counters.gaps_seen == 1
    assert watched.delivered == [1, 2, 3, 4, 5]


def test_entries_beyond_a_gap_are_kept_up_to_a_bound() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(2, 2 * EARLY_ENTRIES_MAX), now=0.0)
    early = watched.replica.held[ROOM].early
    assert early is not None
    assert len(early) == EARLY_ENTRIES_MAX
    watched.pull(2 * EARLY_ENTRIES_MAX)
    assert watched.replica.held[ROOM].last == 2 * EARLY_ENTRIES_MAX


def test_the_digest_is_compared_at_the_synced_head_even_if_more_was_pushed_meanwhile() -> None:
    watched = Watched(head=4)
    forged = [*entries(1, 3), Entry(Seq(4), BOB, 1004, "forged")]
    watched.replica.pull_begins([ROOM])
    watched.replica.push(ROOM, entries(5, 6), now=0.0)
    watched.replica.pulled(Run(ROOM, Seq(0), [*forged, *entries(5, 6)]))
    assert watched.replica.counters.digest_mismatches == 1
    watched.pull(6)
    assert watched.replica.counters.digest_mismatches == 1
    assert watched.replica.held[ROOM].digest == digest_of(entries(1, 6))


def test_a_copy_that_is_complete_at_a_sync_is_compared_at_once() -> None:
    watched = Watched()
    watched.replica.push(ROOM, [Entry(Seq(1), BOB, 1, "forged")], now=0.0)
    watched.replica.changed([changed(1)])
    assert watched.replica.counters.digest_mismatches == 1
    watched.pull(1)
    assert watched.replica.held[ROOM].digest == digest_of(entries(1, 1))


def test_a_view_that_begins_later_starts_its_copy_there() -> None:
    watched = Watched(head=5)
    watched.pull(5)
    watched.replica.changed([changed(8, first=7)])
    changes = watched.write()
    assert changes.dropped == [ROOM]
    assert watched.replica.vector().seqs == {}
    watched.pull(8)
    watched.write()
    assert watched.written == [7, 8]
    assert watched.replica.held[ROOM].digest == digest_of(entries(7, 8))


def test_a_pulled_run_with_a_hole_is_refused() -> None:
    watched = Watched(head=3)
    with pytest.raises(ProtocolError):
        watched.replica.pulled(Run(ROOM, Seq(0), [*entries(1, 1), *entries(3, 3)]))
    assert watched.replica.held[ROOM].last == 0


def test_a_pushed_frame_with_a_hole_is_refused() -> None:
    watched = Watched()
    with pytest.raises(ProtocolError):
        watched.replica.push(ROOM, [*entries(1, 1), *entries(3, 3)], now=0.0)


def test_a_push_of_an_unknown_conversation_asks_for_a_sync() -> None:
    watched = Watched()
    watched.replica.push(ConversationId("other"), entries(1, 1), now=0.0)
    assert watched.replica.sync_wanted


def test_a_head_that_no_pull_reaches_ends_in_a_sync_instead_of_pulls_for_ever() -> None:
    watched = Watched()
    watched.replica.reached(ROOM, Seq(9), now=0.0)
    pulls = 0
    now = 1.0
    while behind := watched.replica.behind(now):
        pulls += 1
        watched.replica.pull_begins([one.conversation for one in behind])
        watched.replica.pull_ended(ROOM, Seq(0), now)
        now += 60.0
    assert pulls == 5
    assert watched.replica.sync_wanted


def test_unread_counts_what_others_wrote_after_the_marker() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(1, 3), now=0.0)
    assert watched.replica.held[ROOM].unread == 3
    watched.replica.own(ROOM, entries(4, 4, ANN)[0], now=0.0)
    assert (watched.replica.held[ROOM].unread, watched.replica.held[ROOM].marker) == (0, 4)
    watched.replica.push(ROOM, entries(5, 5), now=0.0)
    assert watched.replica.held[ROOM].unread == 1


def test_only_what_was_taken_for_writing_is_offered_for_confirming() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(1, 2), now=0.0)
    assert watched.replica.take_offsets() == {ROOM: 2}
    assert watched.replica.take_offsets() == {}
    watched.replica.unconfirm({ROOM: Seq(2)})
    watched.replica.push(ROOM, entries(3, 3), now=0.0)
    assert watched.replica.take_offsets() == {ROOM: 3}


def test_what_was_pushed_after_the_server_had_counted_is_added_to_its_count() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(1, 3), now=0.0)
    watched.replica.changed([changed(2, unread=1, marker=Seq(1))])
    held = watched.replica.held[ROOM]
    assert (held.marker, held.unread) == (1, 2)


def test_a_count_from_before_an_own_mark_does_not_undo_it() -> None:
    watched = Watched()
    watched.replica.push(ROOM, entries(1, 3), now=0.0)
    watched.replica.mark(ROOM, Seq(2), 2)
    watched.replica.changed([changed(3, unread=3)])
    held = watched.replica.held[ROOM]
    assert (held.marker, held.unread) == (2, 1)


def test_a_view_that_has_ended_keeps_the_name_that_it_had() -> None:
    """I13: no name is told any more, and the last one that the user saw is no empty one."""
    watched = Watched()
    named = Changed(
        ROOM, ConversationKind.GROUP, Seq(2), Seq(1), to_hex(digest_of(entries(1, 2))), KEY.hex(),
        name="Ours",
    )  # fmt: skip
    watched.replica.changed([named])
    watched.replica.changed([changed(2, left=True)])
    (copy,) = watched.write().copies
    assert (copy.name, copy.left) == ("Ours", True)


def test_doubts_that_begin_during_a_sync_are_answered_by_the_next_from_the_very_start() -> None:
    """The one under way lists only what changed: what it leaves out is not gone."""
    watched = Watched(head=5)
    watched.pull(5)
    replica = watched.replica
    replica.doubts.sync_begins()
    replica.doubt()
    replica.sync_ended(9)
    assert (replica.cursor, replica.sync_wanted) == (0, True)
    assert replica.held[ROOM].last == 5
    replica.doubts.sync_begins()
    replica.changed([changed(5)])
    replica.sync_ended(9)
    assert (replica.cursor, replica.held[ROOM].last) == (9, 5)
    assert not watched.reported
