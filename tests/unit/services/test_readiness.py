"""A process is ready while it serves and no tier that it needs fails."""

from __future__ import annotations

from trunkline.ports.readiness import TierHealth
from trunkline.services.readiness import Readiness, Report, TierReport


def test_a_needed_tier_that_fails_makes_the_process_not_ready_and_is_named() -> None:
    failure = ""
    readiness = Readiness([TierHealth("journal", True, lambda: failure)], serving=lambda: True)
    assert readiness.report() == Report("ready", (TierReport("journal", True),))
    failure = "storage_full"
    assert readiness.report() == Report("not_ready", (TierReport("journal", True, "storage_full"),))
    failure = ""
    assert readiness.report().ready


def test_a_tier_that_others_stand_in_for_is_shown_and_keeps_nobody_away() -> None:
    tiers = [TierHealth("cold", False, lambda: "tier_unavailable")]
    report = Readiness(tiers, serving=lambda: True).report()
    assert report.ready
    assert report.tiers == (TierReport("cold", False, "tier_unavailable"),)


def test_who_starts_or_drains_is_not_ready() -> None:
    assert not Readiness([], serving=lambda: False).report().ready
