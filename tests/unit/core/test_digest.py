"""Digests are sums of entry hashes: order-free, incremental, subtractable (I14)."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from core_strategies import conversations, digest_keys, hashes, ids, runs, seqs
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core import digest
from trunkline.model import NO_DIGEST, ConversationId, Digest, Entry, Kind, Seq, UserId


@given(st.lists(hashes), st.data())
def test_digests_of_adjacent_ranges_add_up(all_hashes: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(all_hashes)))
    before, behind = all_hashes[:cut], all_hashes[cut:]
    whole = digest.total(all_hashes)
    assert digest.total(behind, start=digest.total(before)) == whole
    assert digest.subtract(whole, digest.total(before)) == digest.total(behind)


@given(st.lists(hashes), st.randoms())
def test_the_order_of_entries_does_not_matter_to_their_sum(
    all_hashes: list[bytes], random: object
) -> None:
    one_by_one = NO_DIGEST
    for item in reversed(all_hashes):
        one_by_one = digest.add(one_by_one, item)
    assert one_by_one == digest.total(all_hashes)


@given(st.integers(0, 2**128 - 1).map(Digest))
def test_a_digest_comes_back_from_its_bytes_and_stands_as_32_hex_digits(value: Digest) -> None:
    assert digest.from_bytes(digest.to_bytes(value)) == value
    assert len(digest.to_hex(value)) == 32
    assert int(digest.to_hex(value), 16) == value


@given(runs(most=1), conversations, digest_keys, st.data())
def test_the_hash_of_an_entry_changes_with_each_of_its_fields(
    run: list[Entry], conversation: ConversationId, key: bytes, data: st.DataObject
) -> None:
    entry = run[0]
    reference = digest.hash_entry(entry, digest.hasher(conversation, key))
    other = data.draw(runs(most=1).filter(lambda other: other[0] != entry))[0]
    assert digest.hash_entry(other, digest.hasher(conversation, key)) != reference
    assert digest.hash_entry(entry, digest.hasher(ConversationId(conversation + "x"), key)) != (
        reference
    )
    other_key = bytes((key[0] ^ 1,)) + key[1:]
    assert digest.hash_entry(entry, digest.hasher(conversation, other_key)) != reference


@given(ids, ids)
def test_text_that_moves_from_one_field_to_the_next_is_another_entry(left: str, right: str) -> None:
    """Lengths stand before what they measure."""
    entry_hash = digest.hasher(ConversationId("g"), b"k" * 32)
    fields = [(left + right, ""), (left, right), ("", left + right)]
    found = {
        entry_hash(Seq(1), UserId("ann"), "message", 0, content_type, body, Seq(0))
        for content_type, body in fields
    }
    assert len(found) == 3


def test_the_hash_is_the_one_that_is_documented() -> None:
    """Other implementations compute it by the words of the docstring."""
    entry = Entry(
        Seq(7), UserId("José"), 1_700_000_000_000, "héllo", Kind.MESSAGE, refers_to=Seq(3)
    )
    parts = ["g 🦊".encode(), "José".encode(), b"message", b"text/plain"]
    body = "héllo".encode()
    data = b"".join(value.to_bytes(8, "big") for value in (7, 3, 1_700_000_000_000))
    data += b"".join(len(part).to_bytes(2, "big") for part in parts) + len(body).to_bytes(4, "big")
    data += b"".join([*parts, body])
    expected = blake2b(data, digest_size=16, key=b"k" * 32).digest()
    assert digest.hash_entry(entry, digest.hasher(ConversationId("g 🦊"), b"k" * 32)) == expected


@given(st.dictionaries(conversations, seqs), conversations, seqs)
def test_a_vector_digest_is_kept_up_to_date_by_its_differences(
    vector: dict[ConversationId, Seq], moved: ConversationId, to: Seq
) -> None:
    before = digest.vector_digest(vector)
    old = vector.get(moved, Seq(0))
    after = digest.move_vector(before, moved, old, to)
    assert after == digest.vector_digest({**vector, moved: to})
    assert digest.move_vector(after, moved, to, old) == before
    assert (after == before) == (old == to)


@pytest.mark.parametrize("vector", [{}, {ConversationId("g"): Seq(0)}])
def test_an_endpoint_that_holds_nothing_has_the_empty_vector_digest(
    vector: dict[ConversationId, Seq],
) -> None:
    assert digest.vector_digest(vector) == NO_DIGEST
