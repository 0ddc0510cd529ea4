"""What is said of an error: its advice to clients, its detail to the log, whatever the error."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from trunkline.errors import BY_CODE, TrunklineError
from trunkline.services.metrics import Metrics
from trunkline.services.refusals import Refusals
from trunkline.testing.conformance import SteppedClock
from trunkline.wire.encoding import JSON
from trunkline.wire.frames import Error, Goodbye

SECRET = "Access denied for user 'trunkline'@'db1.internal:3306', /etc/trunkline/keyring.json"
OF_THE_REQUEST = {
    "ahead_of_head", "bad_frame", "body_empty", "body_too_large", "frame_too_large", "group_full",
    "invalid_id", "invalid_input", "invalid_range", "not_allowed", "too_many_users",
    "unsupported_version", "wrong_order",
}  # fmt: skip
"""These name what is wrong with a frame, by the frame itself and the limits."""
EVERY = sorted(BY_CODE.items())


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def refusals(clock: SteppedClock) -> Refusals:
    return Refusals(clock, Metrics())


@pytest.mark.parametrize(("code", "kind"), EVERY, ids=[code for code, _ in EVERY])
def test_no_client_is_told_what_only_the_server_knows(
    refusals: Refusals, code: str, kind: type[TrunklineError]
) -> None:
    error = kind(SECRET, retry_after_seconds=1.5)
    with capture_logs() as logged:
        frames = [refusals.error(error, request=1), Goodbye.of(error, reconnect=True)]
    for frame in frames:
        assert isinstance(frame, Error | Goodbye)
        assert (frame.code, frame.retry_after_seconds) == (code, 1.5)
        assert (SECRET.encode() in JSON.encode(frame)) == (code in OF_THE_REQUEST)
        assert frame.message == (SECRET if code in OF_THE_REQUEST else kind.advice)
    assert [line["detail"] for line in logged] == ([] if code in OF_THE_REQUEST else [SECRET])


def test_a_tier_that_is_away_fills_no_log(refusals: Refusals, clock: SteppedClock) -> None:
    error = BY_CODE["storage_unavailable"](SECRET)
    with capture_logs() as logged:
        for _ in range(1_000):
            refusals.error(error)
        clock.advance(1.0)
        refusals.error(error)
    assert [line["more"] for line in logged] == [0, 999]
