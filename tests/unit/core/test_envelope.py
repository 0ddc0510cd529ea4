"""A sealed blob opens as what it was sealed for, and as nothing else (DESIGN section 8)."""

from __future__ import annotations

import msgspec
import pytest
from core_strategies import (
    conversations,
    kinds,
    message_ids,
    sealer,
    seqs,
    text,
    times,
    users,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from trunkline.core.bodies import pack_body
from trunkline.core.envelope import (
    associated_data_of,
    entry_associated_data,
    name_associated_data,
    opened,
    segment_associated_data,
)
from trunkline.errors import SealBroken
from trunkline.model import ConversationId, Digest, Place, Seq, StoredEntry

SEALER = sealer()
HERE = Place("0001:here")
CIPHER = SEALER.cipher(SEALER.new_wrapped_key(HERE), HERE)

stored_entries = st.builds(
    StoredEntry,
    seq=seqs, sender=users, client_message_id=message_ids, kind=kinds, time_ms=times,
    refers_to=seqs, countable=st.just(1), entry_hash=st.just(b"h" * 16),
    digest=st.just(b"d" * 16), sealed=st.just(b""),
)  # fmt: skip
BOUND = ("seq", "sender", "client_message_id", "kind", "time_ms", "refers_to")


@given(conversations, stored_entries, text, text)
def test_an_entry_opens_in_its_place(
    conversation: ConversationId, entry: StoredEntry, content_type: str, body: str
) -> None:
    place = associated_data_of(conversation, entry)
    blob = CIPHER.seal(pack_body(content_type, body), place)
    shown = opened(entry, CIPHER.open(blob, place))
    assert (shown.content_type, shown.body) == (content_type, body)
    assert (shown.seq, shown.sender, shown.kind) == (entry.seq, entry.sender, entry.kind)


@given(conversations, stored_entries, stored_entries, st.sampled_from(BOUND))
def test_an_entry_opens_under_no_changed_field(
    conversation: ConversationId, entry: StoredEntry, other: StoredEntry, field: str
) -> None:
    assume(getattr(entry, field) != getattr(other, field))
    moved = msgspec.structs.replace(entry, **{field: getattr(other, field)})
    blob = CIPHER.seal(b"body", associated_data_of(conversation, entry))
    with pytest.raises(SealBroken):
        CIPHER.open(blob, associated_data_of(conversation, moved))


@given(st.tuples(conversations, stored_entries), st.tuples(conversations, stored_entries))
def test_no_two_places_share_their_associated_data(
    one: tuple[ConversationId, StoredEntry], other: tuple[ConversationId, StoredEntry]
) -> None:
    same = one[0] == other[0] and all(getattr(one[1], f) == getattr(other[1], f) for f in BOUND)
    assert (associated_data_of(*one) == associated_data_of(*other)) == same


@given(users, message_ids, st.data())
def test_text_that_moves_from_one_id_to_the_next_is_another_place(
    sender: str, message_id: str, data: st.DataObject
) -> None:
    joined = sender + message_id
    cut = data.draw(st.integers(0, len(joined)).filter(lambda at: at != len(sender)))

    def place(a: str, b: str) -> bytes:
        return entry_associated_data(b"g", 1, a, b, "message", 0, 0)

    assert place(joined[:cut], joined[cut:]) != place(sender, message_id)


@given(conversations, seqs, seqs, st.integers(0, 2**128 - 1).map(Digest), st.integers(0, 3))
def test_a_segment_opens_under_no_other_bounds(
    conversation: ConversationId, first: Seq, last: Seq, digest: Digest, changed: int
) -> None:
    place = segment_associated_data(conversation, first, last, digest)
    blob = CIPHER.seal(b"segment", place)
    assert CIPHER.open(blob, place) == b"segment"
    others = [
        (ConversationId(conversation + "x"), first, last, digest),
        (conversation, Seq(first + 1), last, digest),
        (conversation, first, Seq(last + 1), digest),
        (conversation, first, last, Digest(digest ^ 1)),
    ]
    with pytest.raises(SealBroken):
        CIPHER.open(blob, segment_associated_data(*others[changed]))


@given(conversations, conversations)
def test_a_name_opens_for_its_conversation_only(
    conversation: ConversationId, other: ConversationId
) -> None:
    blob = CIPHER.seal(b"name", name_associated_data(conversation))
    assert CIPHER.open(blob, name_associated_data(conversation)) == b"name"
    assume(conversation != other)
    with pytest.raises(SealBroken):
        CIPHER.open(blob, name_associated_data(other))
