"""Once HBase did not answer, one question at a time finds out whether it does."""

from __future__ import annotations

import pytest

from trunkline.adapters.hbase.breaker import Away, Breaker
from trunkline.testing.conformance import SteppedClock


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def breaker(clock: SteppedClock) -> Breaker:
    return Breaker(1.0, clock.monotonic)


def test_nobody_asks_until_the_pause_is_over_and_then_one(
    breaker: Breaker, clock: SteppedClock
) -> None:
    assert breaker.unanswered(clock.monotonic())
    for _ in range(3):
        clock.advance(0.9)
        with pytest.raises(Away), breaker.turn():
            pass
        clock.advance(0.2)
        with breaker.turn() as is_probe:
            assert is_probe
            with pytest.raises(Away), breaker.turn():
                pass
            assert not breaker.unanswered(clock.monotonic()), "it was open"


def test_an_answer_lets_all_ask(breaker: Breaker, clock: SteppedClock) -> None:
    breaker.unanswered(clock.monotonic())
    clock.advance(1.0)
    with breaker.turn():
        assert breaker.answered()
    with breaker.turn() as one, breaker.turn() as other:
        assert (one, other) == (False, False)
    assert not breaker.answered(), "it was closed"


def test_a_question_without_an_answer_among_others_with_one_says_nothing(
    breaker: Breaker, clock: SteppedClock
) -> None:
    """One slow range must not shut out all others."""
    asked_at = clock.monotonic()
    clock.advance(4.0)
    breaker.answered()
    clock.advance(1.0)
    assert not breaker.unanswered(asked_at)
    assert not breaker.is_open
    assert breaker.unanswered(clock.monotonic())


def test_a_probe_that_was_cut_short_leaves_its_place(breaker: Breaker, clock: SteppedClock) -> None:
    breaker.unanswered(clock.monotonic())
    clock.advance(1.0)
    with pytest.raises(KeyboardInterrupt), breaker.turn():
        raise KeyboardInterrupt
    with breaker.turn() as is_probe:
        assert is_probe
