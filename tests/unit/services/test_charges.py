"""Charges: by the users that an operation names, and to those who did not ask for it."""

from __future__ import annotations

import pytest

from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.errors import RateLimited, UserCrowded
from trunkline.model import UserId
from trunkline.services.charges import Rates
from trunkline.services.list_bound import ListBound
from trunkline.services.settings import ServiceSettings
from trunkline.testing.conformance import SteppedClock

ANN, EVE = UserId("ann"), UserId("eve")
NAMED = 10
JOINED = 5


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def rates(clock: SteppedClock) -> Rates:
    settings = ServiceSettings(
        named_per_second=1.0, named_burst=NAMED, joined_per_second=1.0, joined_burst=JOINED
    )
    return Rates(settings, clock, ListBound(MemoryHotStore(clock), clock, most_lines=100))


def strangers(count: int, name: str = "u") -> list[UserId]:
    return [UserId(f"{name}{number}") for number in range(count)]


def test_users_that_are_named_count_not_the_operations(rates: Rates, clock: SteppedClock) -> None:
    rates.naming(EVE, strangers(6), begins=True)
    with pytest.raises(RateLimited) as refused:
        rates.naming(EVE, strangers(4), begins=False)
    assert refused.value.retry_after_seconds == 1.0
    rates.naming(ANN, strangers(4), begins=False)
    clock.advance(1.0)
    rates.naming(EVE, strangers(4), begins=False)


def test_a_user_is_put_into_so_many_conversations_by_all_strangers_together(
    rates: Rates, clock: SteppedClock
) -> None:
    for stranger in strangers(JOINED, "stranger"):
        rates.joining(stranger, [ANN], begins=False)
    with pytest.raises(UserCrowded) as refused:
        rates.joining(EVE, [ANN], begins=False)
    assert refused.value.retry_after_seconds == 1.0
    clock.advance(1.0)
    rates.joining(EVE, [ANN], begins=False)


def test_who_is_crowded_costs_the_others_nothing(rates: Rates) -> None:
    for _ in range(JOINED):
        rates.joining(EVE, [ANN], begins=False)
    others = strangers(3)
    for _ in range(10):
        with pytest.raises(UserCrowded):
            rates.joining(EVE, [*others, ANN], begins=False)
    for _ in range(JOINED):
        rates.joining(EVE, others, begins=False)


def test_a_users_own_conversations_are_charged_to_nobody(rates: Rates) -> None:
    for _ in range(3 * JOINED):
        rates.joining(EVE, [EVE], begins=False)
