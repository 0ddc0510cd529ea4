"""Who is given up when too much waits for all together."""

from __future__ import annotations

from trunkline.gateway.backlog import Backlog


def test_the_sum_is_kept_by_giving_up_who_made_no_progress_for_longest() -> None:
    backlog: Backlog[str] = Backlog(100)
    backlog.hold("a", 40)
    backlog.hold("b", 40)
    backlog.hold("a", 50)
    assert list(backlog.given_up()) == []
    backlog.progressed("a")
    backlog.hold("c", 40)
    assert list(backlog.given_up()) == ["b"]
    assert backlog.total_bytes == 90
    backlog.hold("c", 99)
    assert list(backlog.given_up()) == ["a"]


def test_what_is_released_counts_no_more() -> None:
    backlog: Backlog[str] = Backlog(100)
    backlog.hold("a", 60)
    backlog.release("a")
    backlog.release("a")
    backlog.progressed("a")
    assert (backlog.total_bytes, len(backlog), list(backlog)) == (0, 0, [])


def test_one_that_is_more_than_the_bound_by_itself_is_given_up() -> None:
    backlog: Backlog[str] = Backlog(100)
    backlog.hold("a", 101)
    assert list(backlog.given_up()) == ["a"]
    assert list(backlog.given_up()) == []
