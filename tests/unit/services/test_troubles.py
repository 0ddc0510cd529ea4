"""What fails is said once, whatever tries it again and again."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from trunkline.errors import OutcomeUnknown, StorageUnavailable
from trunkline.services.troubles import Troubles


def test_a_trouble_is_said_once_for_each_place_and_reason_and_so_is_its_end() -> None:
    with capture_logs() as said:
        troubles = Troubles(structlog.get_logger(), "it_failed")
        for _ in range(3):
            troubles.failed("one", StorageUnavailable())
        troubles.failed("other", StorageUnavailable())
        troubles.failed("one", OutcomeUnknown())
        for _ in range(3):
            troubles.passed("one")
        troubles.failed("one", StorageUnavailable())
    assert [(line["event"], line["place"], line.get("code")) for line in said] == [
        ("it_failed", "one", "storage_unavailable"),
        ("it_failed", "other", "storage_unavailable"),
        ("it_failed", "one", "outcome_unknown"),
        ("it_failed_ended", "one", None),
        ("it_failed", "one", "storage_unavailable"),
    ]
