"""An entry comes back from its stored form as it was, whatever its client message id."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.adapters.redis.entries import Unreadable, decode, digest_before, encode
from trunkline.core import digest as digests
from trunkline.model import NO_DIGEST, ClientMessageId, Kind, Seq, StoredEntry, UserId

message_ids = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
    st.uuids().map(str),
    st.uuids().map(lambda found: found.hex),
    st.uuids().map(lambda found: str(found).upper()),
    st.text("0123456789abcdef- ", min_size=32, max_size=36),
)


@st.composite
def runs(draw: st.DrawFn) -> list[StoredEntry]:
    first = draw(st.integers(1, 2**40))
    running = draw(st.integers(0, 2**128 - 1))
    entries = []
    for seq in range(first, first + draw(st.integers(1, 5))):
        entry_hash = draw(st.binary(min_size=16, max_size=16))
        running = digests.add(running, entry_hash)
        entries.append(
            StoredEntry(
                Seq(seq), UserId(draw(st.text(min_size=1, max_size=8))),
                ClientMessageId(draw(message_ids)), draw(st.sampled_from(Kind)),
                draw(st.integers(0, 2**45)), Seq(draw(st.integers(0, seq))),
                draw(st.integers(0, seq)), entry_hash, digests.to_bytes(running),
                draw(st.binary(max_size=64)),
            )
        )  # fmt: skip
    return entries


@given(runs())
def test_entries_come_back_as_they_were(entries: list[StoredEntry]) -> None:
    stored = [encode(entry) for entry in entries]
    assert decode(stored, entries[0].seq - 1, digest_before(entries[0])) == entries


@pytest.mark.parametrize("form", [str, lambda found: found.hex])
def test_a_uuid_takes_less_room_than_its_digits(form: object) -> None:
    entry = StoredEntry(
        Seq(1), UserId("ann"), ClientMessageId(form(uuid.UUID(int=7))), Kind.MESSAGE, 0, Seq(0), 1,
        bytes(16), bytes(16), b"",
    )  # fmt: skip
    assert len(encode(entry)) < 16 + 32


@pytest.mark.parametrize("stored", [b"", bytes(16), bytes(16) + b"\x93\x01\x02\x03", b"\xff" * 40])
def test_what_is_no_entry_is_refused(stored: bytes) -> None:
    with pytest.raises(Unreadable):
        decode([stored], 0, digests.to_bytes(NO_DIGEST))


def test_a_kind_of_a_newer_version_is_refused() -> None:
    entry = StoredEntry(
        Seq(1), UserId("ann"), ClientMessageId("m"), Kind.RENAMED, 0, Seq(0), 1,
        bytes(16), bytes(16), b"",
    )  # fmt: skip
    stored = encode(entry).replace(b"\xc4\x01m\x04", b"\xc4\x01m\x63")
    with pytest.raises(Unreadable):
        decode([stored], 0, digests.to_bytes(NO_DIGEST))
