"""Ids: what may be one, and one id for each pair of users, whoever asks."""

from __future__ import annotations

import pytest
from core_strategies import ids, text, users
from hypothesis import assume, given
from hypothesis import strategies as st

from trunkline.core.ids import (
    CONVERSATION_ID_BYTES,
    ID_BYTES,
    SHARDS,
    check_group_id,
    check_id,
    conversation_key,
    may_be_of,
    part_of_single,
    shard_of,
    single_conversation_id,
    users_of_single,
    uuid7,
)
from trunkline.errors import InvalidId
from trunkline.model import ConversationId, UserId


@given(users, users)
def test_a_single_conversation_has_one_id_for_both(one: UserId, other: UserId) -> None:
    assume(one != other)
    identity = single_conversation_id(one, other)
    assert identity == single_conversation_id(other, one)
    found = users_of_single(identity)
    assert found is not None
    assert set(found) == {one, other}
    assert found == users_of_single(single_conversation_id(other, one))
    assert list(found) == sorted(found, key=str.encode)
    assert len(identity.encode()) <= CONVERSATION_ID_BYTES


@given(users, users)
def test_a_single_conversation_may_be_of_its_two_users(one: UserId, other: UserId) -> None:
    assume(one != other)
    identity = single_conversation_id(one, other)
    assert may_be_of(identity, part_of_single(one))
    assert may_be_of(identity, part_of_single(other))


@pytest.mark.parametrize("user", ["mallory", "alic", "lice", "bo", "ob", "5:alice", "é", ""])
def test_a_single_conversation_is_of_nobody_else(user: str) -> None:
    """I13."""
    part = part_of_single(UserId(user))
    assert not may_be_of(single_conversation_id(UserId("alice"), UserId("bob")), part)
    assert may_be_of(ConversationId("a group"), part)


@given(st.sets(users, min_size=3, max_size=3))
def test_no_two_pairs_share_an_id(three: set[UserId]) -> None:
    a, b, c = three
    pairs = {
        single_conversation_id(a, b),
        single_conversation_id(a, c),
        single_conversation_id(b, c),
    }
    assert len(pairs) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b:1:c"), ("a:1:b", "c")),
        (("1:a", "b"), ("1", "a1:b")),
        (("José", "x"), ("Jose\u0301", "x")),
        (("jose", "x"), ("jose ", "x")),
    ],
)
def test_users_that_look_like_lengths_make_no_false_pair(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    first = single_conversation_id(UserId(one[0]), UserId(one[1]))
    assert first != single_conversation_id(UserId(other[0]), UserId(other[1]))


def test_nobody_has_a_single_conversation_with_oneself() -> None:
    with pytest.raises(InvalidId):
        single_conversation_id(UserId("ann"), UserId("ann"))


@given(text)
def test_users_are_read_from_the_canonical_id_only(rest: str) -> None:
    found = users_of_single(ConversationId("single:" + rest))
    assert found is None or single_conversation_id(*found) == "single:" + rest


@pytest.mark.parametrize(
    "identity",
    [
        "g", "single:", "single:1:a", "single:1:b1:a", "single:1:a1:a", "single:01:a1:b",
        "single:+1:a1:b", "single: 1:a1:b", "single:1:a1:b1:c", "single:1:a2:b", "single:-1:a1:b",
        "single:1:a1:bc", "single:1_0:aaaaaaaaaa1:b", "single:0:1:a", "single:0:0:",
        "single:1:é1:a", "Single:1:a1:b",
    ],
)  # fmt: skip
def test_an_id_that_is_not_canonical_names_no_users(identity: str) -> None:
    assert users_of_single(ConversationId(identity)) is None


@given(ids)
def test_any_unicode_of_up_to_64_bytes_is_an_id(value: str) -> None:
    check_id(value, "user")


@pytest.mark.parametrize("value", ["", "a\0b", "x" * 65, "é" * 33, "🦊" * 17, "\ud800"])
def test_what_is_empty_too_long_or_not_text_is_no_id(value: str) -> None:
    with pytest.raises(InvalidId):
        check_id(value, "user")


def test_limits_of_ids_count_bytes() -> None:
    check_id("é" * (ID_BYTES // 2), "user")
    check_group_id("x" * CONVERSATION_ID_BYTES)
    with pytest.raises(InvalidId):
        check_group_id("x" * (CONVERSATION_ID_BYTES + 1))


@pytest.mark.parametrize("value", ["single:", "single:1:a1:b"])
def test_a_group_may_not_pose_as_a_single_conversation(value: str) -> None:
    with pytest.raises(InvalidId):
        check_group_id(value)


@given(st.integers(0, 2**64), st.integers(0, 2**128))
def test_a_key_is_64_bits_and_says_its_shard(shard_hash: int, random_bits: int) -> None:
    key = conversation_key(shard_hash, random_bits)
    assert 0 <= key < 2**64
    assert shard_of(key) == shard_hash % SHARDS
    assert key & (2**54 - 1) == random_bits & (2**54 - 1)


@given(st.integers(0, 2**48 - 2), st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_later_uuids_are_higher_whatever_their_random_bits(time_ms: int, a: int, b: int) -> None:
    assert uuid7(time_ms, a) < uuid7(time_ms + 1, b)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_uuid_has_the_version_and_variant_of_rfc_9562(time_ms: int, random_bits: int) -> None:
    value = uuid7(time_ms, random_bits)
    assert len(value) == 32
    assert value[12] == "7"
    assert value[16] in "89ab"
    assert int(value[:12], 16) == time_ms
