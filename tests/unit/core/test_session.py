"""A bucket lets no more pass than its rate and its burst, whatever is taken in which portions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.session import TokenBucket
from trunkline.errors import RateLimited

RATE, BURST = 10.0, 50


def test_what_was_not_used_is_there_at_once_and_no_more_than_the_burst() -> None:
    bucket = TokenBucket(RATE, BURST, 0.0)
    bucket.take(1_000.0, 30)
    bucket.take(1_000.0, 20)
    with pytest.raises(RateLimited) as refused:
        bucket.take(1_000.0, 5)
    assert refused.value.retry_after_seconds == pytest.approx(0.5)
    bucket.take(1_000.5, 5)


def test_what_is_more_than_the_burst_passes_a_full_bucket_and_is_paid_off() -> None:
    bucket = TokenBucket(RATE, BURST, 0.0)
    bucket.take(0.0, 150)
    with pytest.raises(RateLimited) as refused:
        bucket.take(0.0)
    assert refused.value.retry_after_seconds == pytest.approx(10.1)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 200)), max_size=30))
def test_what_passes_is_bounded_over_any_time(steps: list[tuple[float, float]]) -> None:
    bucket, now, passed = TokenBucket(RATE, BURST, 0.0), 0.0, 0.0
    for pause, amount in steps:
        now += pause
        with suppress(RateLimited):
            bucket.take(now, amount)
            assert passed <= RATE * now + BURST
            passed += amount
