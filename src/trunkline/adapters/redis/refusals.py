"""Why a server that answers is not the tier, by what it says or turns out to be."""

from enum import StrEnum
from functools import partial
from typing import Final

from trunkline.errors import TierUnavailable
from trunkline.ports.readings import Reading


class Refusal(StrEnum):
    """Why a server was left, or not taken. Most are what Redis calls them."""

    READONLY = "readonly"
    """It is a replica: another one is the primary."""
    MISCONF = "misconf"
    """It takes no writes since it could not save to its disk."""
    NOREPLICAS = "noreplicas"
    """It takes no writes since too few replicas follow it."""
    MASTERDOWN = "masterdown"
    """It is a replica that has lost its primary."""
    CLUSTERDOWN = "clusterdown"
    """Some slots of its cluster are nobody's."""
    LOADING = "loading"
    """It reads its data set."""
    BUSY = "busy"
    """A script that does not end keeps it from everything else."""
    NOAUTH = "noauth"
    """It wants a login."""
    WRONGPASS = "wrongpass"
    """It does not know the user, or the password is another."""
    NOPERM = "noperm"
    """The user may not do what is asked."""
    EMPTIED = "emptied"
    """Its data set is not the one that it had."""
    REPLACED = "replaced"
    """It was restarted, promoted or made a replica and back while the connection stood."""
    OTHER = "other"
    """Any other error."""


_OF_ONE_KEY: Final = frozenset({"OOM", "NOSCRIPT", "MOVED", "ASK", "TRYAGAIN"})
"""Errors after which the server is still the right one for everything else."""


_LASTING: Final = frozenset({Refusal.NOAUTH, Refusal.WRONGPASS, Refusal.NOPERM, Refusal.OTHER})


class Refused(TierUnavailable):
    """A server answers and is not the tier.

    Attributes:
        refusal: why.
        lasts: whether no waiting mends that.
    """

    def __init__(self, detail: str, refusal: Refusal) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.lasts = refusal in _LASTING


def refusal_in(error: str) -> Refusal | None:
    """What an error reply says of its server; None: it concerns only what was asked."""
    word = error.split(" ", 1)[0]
    if word in _OF_ONE_KEY:
        return None
    known = Refusal.__members__.get(word)
    return known or Refusal.OTHER


class Refusals:
    """Counts them, by why."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Refusal, 0)

    def note(self, refusal: Refusal) -> None:
        """A server was left, or not taken."""
        self._counts[refusal] += 1

    def readings(self) -> list[Reading]:
        """How often, by why."""
        return [
            Reading(
                "trunkline_cached_refusals", refusal, partial(self._counts.__getitem__, refusal)
            )
            for refusal in Refusal
        ]
