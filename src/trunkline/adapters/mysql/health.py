"""What is known of whether a database answers and commits; refuses at once while it does not."""

from collections.abc import Callable

import structlog

from trunkline.errors import StorageUnavailable, TrunklineError

_log = structlog.get_logger("trunkline.mysql")
_RETRY_SECONDS = 1.0


class Health:
    """One database's, from what all who ask it meet.

    Attributes:
        failure: code of the error that a commit fails with now, or nothing.
        answered_at: when it last answered anything, on the clock of `now`.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self._name = name
        self._now = now
        self._refusal = ""
        self.failure = ""
        self.answered_at = now()

    @property
    def refuses(self) -> bool:
        """Whether nothing is asked: it does not answer, or is not what it should be."""
        return bool(self._refusal)

    def check(self) -> None:
        """Raises `StorageUnavailable` while nothing is asked."""
        if self._refusal:
            raise StorageUnavailable(self._refusal, retry_after_seconds=_RETRY_SECONDS)

    def answered(self) -> None:
        """It answered a question."""
        self.answered_at = self._now()

    def answers(self) -> None:
        """It is asked again; whether it commits is another matter: what only reads need not wait
        for that.
        """
        self.answered()
        self._refusal = ""

    def committed(self) -> None:
        """It committed: all is well."""
        self.answered()
        if self.failure:
            _log.info("database_back", database=self._name)
        self.failure = self._refusal = ""

    def failed(self, error: TrunklineError) -> None:
        """A commit failed with this; said once for each reason."""
        if self.failure != error.code:
            _log.warning("database_away", database=self._name, code=error.code, detail=error.detail)
        self.failure = error.code

    def refuse(self, error: TrunklineError) -> None:
        """From now on nothing is asked, until it answers whoever looks after it."""
        self.failed(error)
        self._refusal = error.detail
