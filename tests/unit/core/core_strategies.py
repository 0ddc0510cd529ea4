"""What the core is fed with: any ids, bodies and entries, and ciphers with fixed keys."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Entry,
    Kind,
    Seq,
    UserId,
    place_of,
)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
ids = text.filter(lambda value: 0 < len(value.encode()) <= 64)
users = ids.map(UserId)
conversations = ids.map(ConversationId)
message_ids = ids.map(ClientMessageId)
seqs = st.integers(1, 2**53 - 1).map(Seq)
times = st.integers(-(2**40), 2**53)
kinds = st.sampled_from(Kind)
hashes = st.binary(min_size=16, max_size=16)
digest_keys = st.binary(min_size=32, max_size=32)


def sealer() -> KeyringSealer:
    """A sealer whose bytes are the same in each run."""
    numbers = itertools.count(1)
    return KeyringSealer(
        Keyring("keyring", 1, {1: b"k" * 32}),
        lambda size: next(numbers).to_bytes(size, "big"),
    )


@st.composite
def runs(draw: st.DrawFn, most: int = 20) -> list[Entry]:
    """A contiguous run of entries."""
    first = draw(st.integers(1, 2**40))
    rows = draw(
        st.lists(st.tuples(users, times, text, kinds, text, seqs), min_size=1, max_size=most)
    )
    return [
        Entry(Seq(seq), user, time_ms, body, kind, content_type, refers_to)
        for seq, (user, time_ms, body, kind, content_type, refers_to) in enumerate(rows, first)
    ]


def conversation(sealer: KeyringSealer | None = None) -> Conversation:
    """A group without entries; without a sealer it has no key."""
    name = ConversationId("g 🦊")
    key = ConversationKey(2**64 - 1)
    wrapped_key = sealer.new_wrapped_key(place_of(key, name)) if sealer else b""
    return Conversation(key, name, ConversationKind.GROUP, wrapped_key)
