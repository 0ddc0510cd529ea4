"""How many connections may not have said who they are."""

from __future__ import annotations

import pytest

from trunkline.gateway.strangers import PATIENCE_SECONDS, Strangers, network


def test_an_address_that_has_its_share_gets_no_more_and_others_do() -> None:
    strangers: Strangers[str] = Strangers(10, 2)
    for name in ("one", "two"):
        assert strangers.takes("192.0.2.1")
        strangers.came(name, "192.0.2.1", 0.0)
    assert not strangers.takes("192.0.2.1")
    assert strangers.takes("192.0.2.2")
    strangers.left("one")
    strangers.left("one")
    assert strangers.takes("192.0.2.1")
    assert len(strangers) == 1


def test_the_first_to_go_is_who_came_first_and_had_time_to_greet() -> None:
    strangers: Strangers[str] = Strangers(2, 2)
    strangers.came("first", "192.0.2.1", 5.0)
    assert not strangers.full
    strangers.came("second", "192.0.2.1", 5.5)
    assert strangers.full
    assert strangers.slowest(5.0 + PATIENCE_SECONDS / 2) is None
    assert strangers.slowest(5.0 + PATIENCE_SECONDS) == "first"
    strangers.left("first")
    assert strangers.slowest(5.0 + PATIENCE_SECONDS) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_a_host_counts_once_however_many_addresses_it_has(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same
