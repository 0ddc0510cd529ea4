"""Segments hold exactly what was put in, and say so by their digest (I2, I10)."""

from __future__ import annotations

import msgspec
import pytest
from core_strategies import conversation, runs, sealer
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core import digest, segments
from trunkline.core.envelope import segment_associated_data
from trunkline.errors import DataDamaged, SealBroken
from trunkline.model import Digest, Entry, Kind, Seq, UserId

SEALER = sealer()
CONVERSATION = conversation(SEALER)
CIPHER = SEALER.cipher(CONVERSATION.wrapped_key, CONVERSATION.place)


@given(runs(), st.integers(0, 2**53))
def test_a_segment_opens_to_what_was_sealed(run: list[Entry], countable_before: int) -> None:
    segment = segments.seal(CONVERSATION, run, countable_before, CIPHER)
    assert (segment.key, segment.first, segment.last) == (
        CONVERSATION.key, run[0].seq, run[-1].seq,
    )  # fmt: skip
    back = segments.open_segment(CONVERSATION, segment, CIPHER)
    assert (back.entries, back.countable_before) == (run, countable_before)
    assert digest.total(back.hashes) == segment.digest


@given(runs(), st.sampled_from(["first", "last", "digest"]))
def test_a_segment_under_changed_bounds_does_not_open(run: list[Entry], field: str) -> None:
    segment = segments.seal(CONVERSATION, run, 0, CIPHER)
    moved = msgspec.structs.replace(segment, **{field: getattr(segment, field) + 1})
    with pytest.raises((SealBroken, DataDamaged)):
        segments.open_segment(CONVERSATION, moved, CIPHER)


@given(runs(most=8).filter(lambda run: len(run) > 2))
def test_a_run_with_a_hole_does_not_pass_for_whole(run: list[Entry]) -> None:
    holed = [run[0], *run[2:]]
    segment = segments.seal(CONVERSATION, holed, 0, CIPHER)
    with pytest.raises(DataDamaged):
        segments.open_segment(CONVERSATION, segment, CIPHER)


def test_a_segment_says_nothing_of_its_bodies() -> None:
    """I12."""
    run = [Entry(Seq(1), UserId("ann"), 0, "geheim" * 100, Kind.MESSAGE)]
    segment = segments.seal(CONVERSATION, run, 0, CIPHER)
    assert b"geheim" not in segment.sealed
    assert b"ann" not in segment.sealed


@given(st.integers(0, 3_000), st.integers(0, 3_000))
def test_a_plan_covers_its_range_without_hole_or_overlap(after: int, up_to: int) -> None:
    runs_planned = segments.plan(Seq(after), Seq(up_to))
    covered = [seq for first, last in runs_planned for seq in range(first, last + 1)]
    assert covered == list(range(after + 1, up_to + 1))
    for first, last in runs_planned:
        assert last - first < segments.SEGMENT_ENTRIES
        assert (first - 1) // segments.SEGMENT_ENTRIES == (last - 1) // segments.SEGMENT_ENTRIES


def test_a_digest_that_is_not_of_the_entries_is_refused() -> None:
    """I10: also where it was sealed so, by a writer that read other entries than it hashed."""
    run = [Entry(Seq(1), UserId("ann"), 0, "a")]
    segment = segments.seal(CONVERSATION, run, 0, CIPHER)
    bounds = (CONVERSATION.id, segment.first, segment.last)
    packed = CIPHER.open(segment.sealed, segment_associated_data(*bounds, segment.digest))
    other = Digest(segment.digest + 1)
    sealed = CIPHER.seal(packed, segment_associated_data(*bounds, other))
    forged = msgspec.structs.replace(segment, digest=other, sealed=sealed)
    with pytest.raises(DataDamaged):
        segments.open_segment(CONVERSATION, forged, CIPHER)
