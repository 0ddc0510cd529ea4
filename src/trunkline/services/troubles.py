"""Says once that something fails, however often it is tried, and once that it goes on."""

from structlog.typing import FilteringBoundLogger

from trunkline.errors import TrunklineError


class Troubles:
    """What fails now, by the name of the place where it does."""

    def __init__(self, log: FilteringBoundLogger, event: str) -> None:
        """`event`: what the log calls it."""
        self._log = log
        self._event = event
        self._codes: dict[str, str] = {}

    def failed(self, place: str, error: TrunklineError, **more: object) -> None:
        """It failed there; a second time for the same reason is not said."""
        if self._codes.get(place) != error.code:
            self._codes[place] = error.code
            self._log.warning(
                self._event, place=place, code=error.code, detail=error.detail, **more
            )

    def passed(self, place: str) -> None:
        """It went well there."""
        if self._codes.pop(place, None) is not None:
            self._log.info(f"{self._event}_ended", place=place)
