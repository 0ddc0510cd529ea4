"""Decides whether HBase may be asked now: after it did not answer, one question at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Away(Exception):
    """HBase did not answer lately: this question is not asked."""


class Breaker:
    """Opens when HBase does not answer; any answer closes it, a refusal, too.

    While it is open nothing is asked, but for a probe after each pause: the next question
    that comes.
    """

    def __init__(self, retry_seconds: float, now: Callable[[], float]) -> None:
        """`now`: seconds that never jump."""
        self._retry_seconds = retry_seconds
        self._now = now
        self._answered_at = now()
        self._probes_from = 0.0
        self._probing = False
        self.is_open = False

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Within it one question may be asked; yields whether that is the probe.

        Raises `Away` if it may not.
        """
        is_probe = self.is_open
        if is_probe:
            if self._probing or self._now() < self._probes_from:
                raise Away
            self._probing = True
        try:
            yield is_probe
        finally:
            # Whatever became of the probe, a cancelled one too: another may follow.
            self._probing &= not is_probe

    def answered(self) -> bool:
        """Closes it; returns whether it was open."""
        self._answered_at = self._now()
        was_open, self.is_open = self.is_open, False
        return was_open

    def unanswered(self, asked_at: float) -> bool:
        """A question asked at that time (of `now`) had no answer; returns whether this opens it.

        It does not if another was answered meanwhile: then it was the question, or a part of
        HBase, and the rest still serves.
        """
        if self._answered_at > asked_at:
            return False
        was_open, self.is_open = self.is_open, True
        self._probes_from = self._now() + self._retry_seconds
        return not was_open
