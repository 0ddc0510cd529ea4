"""What has an unknown outcome, and what a later commit has settled of it."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")


class Unsettled(Generic[K]):
    """Keys of which it is not known whether what was written of them is stored.

    A commit settles what was unknown before it began. Of two that are under way at once, one
    may end with an unknown outcome while the other goes through, which says nothing of it.
    """

    def __init__(self) -> None:
        self._since: dict[K, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._since)

    def add(self, keys: Iterable[K]) -> None:
        """Their outcome is unknown from now on, whatever is settled of what was before."""
        self._number += 1
        self._since.update(dict.fromkeys(keys, self._number))

    def now(self) -> Mapping[K, int]:
        """What is unknown before a commit begins; to be given to `settle`."""
        return dict(self._since)

    def settle(self, before: Mapping[K, int]) -> list[K]:
        """A commit that began then went through; returns what is not unknown any more."""
        settled = [key for key, since in before.items() if self._since.get(key) == since]
        for key in settled:
            del self._since[key]
        return settled
