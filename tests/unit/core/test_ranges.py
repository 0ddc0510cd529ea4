"""Sums of ranges find where two vectors differ, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.digest import vector_digest
from trunkline.core.ranges import (
    PARTS,
    RANGES,
    Vector,
    move_sums,
    pack_sums,
    part_of,
    place_of,
    unpack_sums,
)
from trunkline.errors import InvalidInput
from trunkline.model import ConversationId, Seq

seqs = st.dictionaries(
    st.integers(0, 400).map(lambda n: ConversationId(f"c{n}")), st.integers(1, 3).map(Seq)
)


def vector_of(held: dict[ConversationId, Seq]) -> Vector:
    vector = Vector()
    for conversation, seq in held.items():
        vector.move(conversation, seq)
    return vector


def divided(held: dict[ConversationId, Seq]) -> Vector:
    vector = vector_of(held)
    list(vector.divide())
    return vector


@given(seqs, seqs)
def test_a_vector_that_moved_is_one_that_was_made_so(
    before: dict[ConversationId, Seq], after: dict[ConversationId, Seq]
) -> None:
    vector = divided(before)
    for conversation in before.keys() | after.keys():
        vector.move(conversation, after.get(conversation, Seq(0)))
    made = divided(after)
    assert vector.seqs == after
    assert vector.digest == made.digest == vector_digest(after)
    assert vector.sums() == made.sums()
    assert sum(made.sums()) % 2**64 == made.digest % 2**64


@given(seqs, seqs)
def test_what_the_parts_that_differ_hold_makes_one_vector_the_other(
    ends: dict[ConversationId, Seq], held: dict[ConversationId, Seq]
) -> None:
    whole, mine = divided(ends), divided(held)
    found: dict[ConversationId, Seq] = dict(ends)
    for number, (one, other) in enumerate(zip(whole.sums(), mine.sums(), strict=True)):
        assert (one == other) == all(
            ends.get(c) == held.get(c)
            for c in ends.keys() | held.keys()
            if part_of(place_of(c)) // PARTS == number
        )
        if one != other:
            found |= whole.held_in(number, mine.unlike(number, whole.part_sums(number)))
    assert found == {c: held.get(c, 0) for c in ends}


@given(seqs, st.integers(0, 400), st.integers(0, 3))
def test_sums_move_as_their_vector_does(
    held: dict[ConversationId, Seq], number: int, seq: int
) -> None:
    conversation, vector = ConversationId(f"c{number}"), divided(held)
    sums = vector.sums()
    move_sums(sums, conversation, vector.of(conversation), Seq(seq))
    vector.move(conversation, Seq(seq))
    assert sums == vector.sums()


def test_what_is_no_sum_is_refused() -> None:
    vector = divided({})
    assert list(unpack_sums(pack_sums(vector.sums()))) == [0] * RANGES
    for wrong in (
        lambda: unpack_sums(bytes(7)),
        lambda: vector.unlike(0, bytes(8)),
        lambda: vector.held_in(0, {0: bytes(15)}),
    ):
        with pytest.raises(InvalidInput):
            wrong()
