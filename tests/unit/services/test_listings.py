"""What is kept of users is bounded in bytes, and offsets are what an endpoint said."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.digest import vector_digest
from trunkline.core.ranges import Vector
from trunkline.model import (
    ConversationId,
    ConversationKey,
    EndpointId,
    Seq,
    UserConversation,
    UserId,
)
from trunkline.services.listings import Listing, Listings, Offsets

some_seqs = st.dictionaries(st.integers(0, 30), st.integers(1, 4), max_size=30)


def id_of(number: int) -> ConversationId:
    return ConversationId(f"c{number}")


def listing_of(ends: dict[int, int]) -> Listing:
    listing = Listing()
    listing.take(UserConversation(id_of(n), ConversationKey(n), n + 1) for n in ends)
    for number, end in ends.items():
        listing.reached(listing.lines[id_of(number)], Seq(end))
    return listing


@given(some_seqs, some_seqs, some_seqs, some_seqs)
def test_offsets_are_the_same_however_they_came_about(
    ends: dict[int, int], offsets: dict[int, int], told: dict[int, int], later: dict[int, int]
) -> None:
    async def story() -> None:
        listing = listing_of(ends)
        kept = Offsets(listing.ends)
        known = {ConversationKey(n): Seq(seq) for n, seq in offsets.items()}
        await kept.load(known, listing.lines)
        listing.endpoints[EndpointId("e")] = kept
        expected = {id_of(n): Seq(offsets[n]) for n in ends if n in offsets}
        for number, seq in told.items():
            kept.move(id_of(number), Seq(seq))
            expected[id_of(number)] = Seq(seq)
        for number, end in later.items():
            line = listing.lines.get(id_of(number))
            if line is not None:
                listing.reached(line, Seq(end))
        assert {id_of(n): kept.of(id_of(n)) for n in range(31) if kept.of(id_of(n))} == expected
        assert await kept.digest() == vector_digest(expected)
        list(listing.ends.divide())
        made = Vector()
        for conversation, seq in expected.items():
            made.move(conversation, seq)
        list(made.divide())
        if ends:
            assert await kept.sums() == (made.sums() or [0] * 256)
        assert kept.behind(listing.ends.seqs.keys()) == {
            c: s for c, end in listing.ends.seqs.items() if (s := expected.get(c, Seq(0))) < end
        }

    asyncio.run(story())


def test_those_who_synced_longest_ago_are_forgotten_at_the_bound() -> None:
    listings = Listings(most_bytes=100_000)
    for number in range(50):
        user = UserId(f"user {number}")
        listing = listings.of(user)
        listing.take(UserConversation(id_of(n), ConversationKey(n), n + 1) for n in range(20))
        listings.weigh(user)
        listings.of(UserId("user 0"))
    assert listings.size_bytes <= 100_000
    assert listings.get(UserId("user 0")) is not None
    assert listings.get(UserId("user 49")) is not None
    assert listings.get(UserId("user 1")) is None


def test_endpoints_of_one_user_are_bounded_too() -> None:
    listings = Listings(most_bytes=20_000)
    listing = listings.of(UserId("ann"))
    for number in range(50):
        offsets = Offsets(listing.ends)
        offsets.tell((id_of(n), Seq(9)) for n in range(10))
        listing.endpoints[EndpointId(f"{number}")] = offsets
        listings.weigh(UserId("ann"))
    assert listing.size_bytes <= 20_000
    assert EndpointId("49") in listing.endpoints


def test_lines_of_one_version_are_all_taken() -> None:
    """A transaction that changes several lines of a user's list gives them one version."""
    listing = listing_of({0: 1})
    lines = [UserConversation(id_of(n), ConversationKey(n), 7) for n in (1, 2, 3)]
    listing.take(lines)
    assert [line.conversation for line in listing.changed_after(1)] == [id_of(n) for n in (3, 2, 1)]
    assert listing.version == 7
