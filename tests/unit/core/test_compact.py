"""Client message ids in their short form: exact, unambiguous, in order."""

from __future__ import annotations

import uuid

import pytest
from core_strategies import message_ids, times
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.compact import KIND_NUMBERS, kind_of, long_id, short_id
from trunkline.core.ids import uuid7
from trunkline.errors import DataDamaged
from trunkline.model import Kind

uuids = st.uuids()
all_ids = (
    message_ids
    | uuids.map(str)
    | uuids.map(lambda value: value.hex)
    | uuids.map(lambda value: str(value).upper())
    | st.text("0123456789abcdefABCDEF- \t", min_size=30, max_size=38)
)


@given(all_ids)
def test_an_id_comes_back_as_it_was(name: str) -> None:
    assert long_id(short_id(name)) == name


@given(all_ids, all_ids)
def test_two_ids_are_never_one(one: str, other: str) -> None:
    assert (short_id(one) == short_id(other)) == (one == other)


@given(uuids)
def test_a_uuid_takes_little_room(value: uuid.UUID) -> None:
    assert len(short_id(value.hex)) == 17
    assert len(short_id(str(value))) == 18


@given(times, times)
def test_ids_that_rise_with_time_rise_in_short(one: int, other: int) -> None:
    first, second = uuid7(min(one, other), 1), uuid7(max(one, other), 1)
    assert (short_id(first) <= short_id(second)) == (first <= second)


def test_every_kind_has_its_number_for_ever() -> None:
    assert {kind: KIND_NUMBERS[kind] for kind in Kind} == {
        "message": 0, "created": 1, "joined": 2, "left": 3, "renamed": 4, "lost": 5,
    }  # fmt: skip
    assert [kind_of(number) for number in range(6)] == list(KIND_NUMBERS)
    with pytest.raises(DataDamaged):
        kind_of(6)
