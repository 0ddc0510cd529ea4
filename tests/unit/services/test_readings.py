"""What adapters count is shown when somebody asks, as it is then."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from trunkline.adapters.memory.cached import EvictionCause, MemoryCachedTier
from trunkline.ports.readings import Reading
from trunkline.services.readings import Readings
from trunkline.testing.conformance import SteppedClock

EVICTED = "trunkline_cached_evicted_entries"


def test_what_was_evicted_is_shown_by_cause_as_of_the_scrape() -> None:
    tier = MemoryCachedTier(SteppedClock())
    registry = CollectorRegistry()
    registry.register(Readings(tier.readings()))
    for entries in (0, 3):
        tier.evicted[EvictionCause.LENGTH] = entries
        assert registry.get_sample_value(f"{EVICTED}_total", {"cause": "length"}) == entries
    assert registry.get_sample_value(f"{EVICTED}_total", {"cause": "idle"}) == 0


def test_readings_of_one_metric_and_label_are_added_up() -> None:
    """Many databases, one number: labels stay few."""
    registry = CollectorRegistry()
    name = "trunkline_hot_sessions_busy"
    counts = (("writers", 2), ("readers", 5), ("writers", 4))
    readings = [Reading(name, pool, partial(int, count)) for pool, count in counts]
    registry.register(Readings(readings))
    assert registry.get_sample_value(name, {"pool": "writers"}) == 6
    assert registry.get_sample_value(name, {"pool": "readers"}) == 5


def test_a_metric_that_nobody_described_is_refused() -> None:
    with pytest.raises(KeyError):
        Readings([Reading("trunkline_surprise", "", lambda: 1)])
