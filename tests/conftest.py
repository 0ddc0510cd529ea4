"""The options of a campaign: how many rounds of crashes, how many seeds of simulation."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", settings.get_profile("default"), deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    campaign = parser.getgroup("campaigns")
    campaign.addoption(
        "--rounds", type=int, default=3, help="rounds of a campaign in tests/fault (3)"
    )
    campaign.addoption(
        "--power-cuts", action="store_true", help="cut the power, too: needs root and a loop device"
    )
    campaign.addoption("--seeds", type=int, default=200, help="seeds of tests/simulation (200)")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a fault test repeats its crash."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> int:
    """How many seeds a simulation test runs."""
    return int(request.config.getoption("--seeds"))
