"""Pages are as long as the link takes within seconds."""

from __future__ import annotations

import pytest

from trunkline.gateway.pace import FIRST_BYTES, LEAST_BYTES, LOOK_SECONDS, Pace


def pulled(pace: Pace, rate: float, pages: int) -> list[float]:
    """Seconds that each page took on a link of so many bytes a second."""
    now, written, took = 0.0, 0, []
    for _ in range(pages):
        pace.look(now, written, written)
        pace.begin(now, written, written)
        size = min(pace.page_bytes, 256 * 1024)
        begin, arrives = written, now + size / rate
        written += size
        took.append(size / rate)
        while pace.measures and now + LOOK_SECONDS < arrives:
            now += LOOK_SECONDS
            pace.look(now, written, begin + int(rate * (now - (arrives - size / rate))))
        now = arrives
    return took


@pytest.mark.parametrize("rate", [1_500.0, 4_096.0, 20_000.0])
def test_on_a_slow_link_every_page_arrives_before_its_reader_gives_up(rate: float) -> None:
    took = pulled(Pace(), rate, 20)
    assert max(took) < 60
    assert max(took[1:]) < 12


def test_on_a_quick_link_all_pages_but_the_first_are_whole() -> None:
    pace = Pace()
    pulled(pace, 50e6, 3)
    assert pace.page_bytes >= 256 * 1024


def test_a_link_that_got_slow_gets_short_pages_and_one_that_got_quick_long_ones() -> None:
    pace = Pace()
    pulled(pace, 50e6, 3)
    pulled(pace, 2_000.0, 2)
    assert LEAST_BYTES <= pace.page_bytes <= 20_000
    pulled(pace, 50e6, 5)
    assert pace.page_bytes >= 256 * 1024


def test_short_answers_and_readers_at_leisure_say_nothing_of_the_link() -> None:
    pace = Pace()
    pace.begin(0.0, 0, 0)
    pace.look(0.1, 500, 500)
    assert pace.page_bytes == FIRST_BYTES
    pace.begin(1.0, 500, 500)
    pace.look(100.0, 500 + FIRST_BYTES, 500 + FIRST_BYTES)
    assert pace.page_bytes == FIRST_BYTES
