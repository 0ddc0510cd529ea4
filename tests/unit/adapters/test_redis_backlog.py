"""What came for a worker and waits: bounded, and a loss is told."""

from __future__ import annotations

import pytest

from trunkline.adapters.redis.backlog import Arrival, Backlog
from trunkline.model import ConversationKey
from trunkline.ports.bus import Forgotten

FORGOTTEN = Forgotten([ConversationKey(1)], ())


async def taken(backlog: Backlog) -> list[Arrival]:
    return [await backlog.next() for _ in range(len(backlog))]


async def test_it_gives_what_came_in_its_order() -> None:
    backlog = Backlog(10, 100)
    for arrival in (b"one", FORGOTTEN, None, b"two"):
        backlog.put(arrival)
    assert backlog.held_bytes == 6
    assert await taken(backlog) == [b"one", FORGOTTEN, None, b"two"]
    assert backlog.held_bytes == 0


@pytest.mark.parametrize("most", [(3, 10**9), (10**9, 30)])
async def test_past_either_bound_all_is_dropped_and_a_gap_is_told(most: tuple[int, int]) -> None:
    backlog = Backlog(*most)
    for number in range(5):
        backlog.put(b"packet %d.." % number)
        assert backlog.held_bytes <= 30
    assert await taken(backlog) == [None, b"packet 3..", b"packet 4.."]


async def test_one_packet_beyond_the_bound_is_a_gap_by_itself() -> None:
    backlog = Backlog(10, 30)
    backlog.put(b"before")
    backlog.put(bytes(31))
    assert await taken(backlog) == [None]


async def test_a_gap_is_told_once() -> None:
    backlog = Backlog(10, 30)
    backlog.tell_of_gap()
    backlog.tell_of_gap()
    backlog.put(b"after")
    backlog.tell_of_gap()
    assert await taken(backlog) == [None, b"after", None]
