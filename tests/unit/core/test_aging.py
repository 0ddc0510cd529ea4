"""Nothing grows old by more than the time that went by, whatever a clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.aging import MOST_STEP_MS, step_ms

DAY_MS = 86_400_000


def test_a_clock_that_is_days_ahead_for_seconds_ages_nothing_by_days() -> None:
    """I6: seconds passed; the wall clock went nine days ahead, and back."""
    assert step_ms(5_000, 9 * DAY_MS) == 5_000
    assert step_ms(5_000, -9 * DAY_MS) == 0


def test_a_suspended_machine_and_a_long_idle_store_age_by_what_both_clocks_say() -> None:
    assert step_ms(3_600_000, 3_600_000) == 3_600_000
    assert step_ms(1_000, 3_600_000) == 1_000


@given(st.integers(), st.integers())
def test_an_age_never_goes_back_and_no_step_is_longer_than_its_bound(
    monotonic_ms: int, wall_ms: int
) -> None:
    assert 0 <= step_ms(monotonic_ms, wall_ms) <= MOST_STEP_MS


def test_workers_that_take_turns_age_a_shared_store_no_faster_than_one() -> None:
    """Each knows its own steps; the store knows when the last step was, whoever made it."""
    age = stepped_at = 0
    own = [0, 0, 0]
    for now in range(1_000, 61_000, 1_000):
        worker = now // 1_000 % 3
        age += step_ms(now - own[worker], now - stepped_at)
        stepped_at = own[worker] = now
    assert age == 60_000
