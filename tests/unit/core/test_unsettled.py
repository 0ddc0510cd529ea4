"""What a commit settles is what was unknown before it began."""

from trunkline.core.unsettled import Unsettled


def test_what_is_unknown_anew_while_a_commit_is_under_way_stays_unknown() -> None:
    unsettled: Unsettled[str] = Unsettled()
    unsettled.add(["a", "b"])
    before = unsettled.now()
    unsettled.add(["b", "c"])
    assert unsettled.settle(before) == ["a"]
    assert unsettled.settle(before) == []
    assert unsettled.settle(unsettled.now()) == ["b", "c"]
    assert not unsettled
