"""Refuses what clients ask: they are told what an error advises, the log is told the rest."""

from typing import Final

import structlog

from trunkline.errors import TrunklineError
from trunkline.model import ClientMessageId, ConversationId
from trunkline.ports.clock import Clock
from trunkline.services.metrics import Metrics
from trunkline.wire.frames import NO_MESSAGE, Error

_log = structlog.get_logger("trunkline.refusals")
_LOGGED_SECONDS: Final = 1.0


class Refusals:
    """Makes the `error` frames of every listener."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def error(
        self,
        error: TrunklineError,
        *,
        id: ClientMessageId = NO_MESSAGE,
        conversation: ConversationId | None = None,
        request: int = 0,
    ) -> Error:
        """The frame that refuses; it names what it answers."""
        self._metrics.frames_refused.labels(error.code).inc()
        if error.detail != error.told:
            self._write_down(error)
        return Error.of(error, id=id, conversation=conversation, request=request)

    def _write_down(self, error: TrunklineError) -> None:
        """One line a code and second: a tier that is away refuses thousands."""
        now, code = self._clock.monotonic(), error.code
        if now < self._logged_at.get(code, now) + _LOGGED_SECONDS and code in self._logged_at:
            self._unlogged[code] = self._unlogged.get(code, 0) + 1
            return
        self._logged_at[code] = now
        _log.warning("refused", code=code, detail=error.detail, more=self._unlogged.pop(code, 0))
