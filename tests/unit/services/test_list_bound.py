"""A list that is full takes no more, is looked at again, and costs no operation a count."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from trunkline.errors import ListFull, StorageUnavailable
from trunkline.model import ConversationId, ConversationKey, UserConversation, UserId
from trunkline.services.list_bound import ListBound
from trunkline.testing.conformance import SteppedClock

ANN, BOB = UserId("ann"), UserId("bob")
MOST = 30
UNCOUNTED = 3


class Lists:
    """A hot store that knows lists only."""

    def __init__(self) -> None:
        self.sizes: dict[UserId, int] = {}
        self.counted: list[UserId] = []
        self.away = False

    async def conversations_of(self, user: UserId) -> list[UserConversation]:
        self.counted.append(user)
        if self.away:
            raise StorageUnavailable
        line = UserConversation(ConversationId("g"), ConversationKey(1), 1)
        return [line] * self.sizes.get(user, 0)


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def bound(lists: Lists, clock: SteppedClock) -> ListBound:
    return ListBound(lists, clock, most_lines=MOST)  # type: ignore[arg-type]


def refuses(bound: ListBound, user: UserId) -> bool:
    try:
        bound.check([user])
    except ListFull:
        return True
    return False


async def test_a_list_is_counted_after_some_joins_and_refused_once_it_is_full(
    bound: ListBound, lists: Lists
) -> None:
    lists.sizes = {ANN: MOST, BOB: MOST - 1}
    bound.joined([ANN, BOB])
    bound.joined([ANN, BOB])
    await bound.look()
    assert lists.counted == []
    bound.joined([ANN, BOB])
    await bound.look()
    assert lists.counted == [ANN, BOB]
    assert [refuses(bound, user) for user in (ANN, BOB)] == [True, False]


async def test_a_list_that_was_full_takes_one_more_and_is_counted_again(
    bound: ListBound, lists: Lists, clock: SteppedClock
) -> None:
    lists.sizes[ANN] = MOST
    for _ in range(UNCOUNTED):
        bound.joined([ANN])
    await bound.look()
    clock.advance(60.0)
    await bound.look()
    assert not refuses(bound, ANN)
    bound.joined([ANN])
    await bound.look()
    assert refuses(bound, ANN)


async def test_a_database_that_is_away_refuses_nobody(bound: ListBound, lists: Lists) -> None:
    lists.away = True
    lists.sizes[ANN] = MOST
    for _ in range(UNCOUNTED):
        bound.joined([ANN, BOB])
    with capture_logs() as logged:
        await bound.look()
    assert [line["code"] for line in logged] == ["storage_unavailable"] * 2
    assert not refuses(bound, ANN)
