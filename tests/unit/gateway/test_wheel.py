"""When a socket is looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.wheel import Wheel

TICK = 0.25


@given(st.lists(st.floats(0.0, 50.0), min_size=1), st.floats(0.0, 1e6))
def test_everything_comes_up_once_within_a_tick_of_its_time_and_not_before(
    delays: list[float], begin: float
) -> None:
    wheel: Wheel[int] = Wheel(TICK, begin)
    for item, delay in enumerate(delays):
        wheel.put(item, begin + delay)
    seen: dict[int, float] = {}
    now = begin
    while now <= begin + 51.0:
        now += TICK
        for item in wheel.turn(now):
            assert item not in seen
            seen[item] = now
    assert len(seen) == len(delays)
    for item, at in seen.items():
        assert -1e-6 <= at - (begin + delays[item]) <= 2 * TICK + 1e-6


def test_what_is_put_again_comes_up_only_then() -> None:
    wheel: Wheel[str] = Wheel(TICK, 0.0)
    slot = wheel.put("socket", 1.0)
    slot = wheel.put("socket", 5.0, slot)
    assert wheel.turn(2.0) == []
    assert wheel.turn(5.0) == ["socket"]
    slot = wheel.put("socket", 6.0)
    wheel.take_out("socket", slot)
    assert wheel.turn(9.0) == []
