"""Says whether a process can serve now, and which tier keeps it from that."""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from trunkline.ports.readiness import TierHealth


class TierReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tier: `failure` is an error's code, and absent while there is none."""

    tier: str
    needed: bool
    failure: str = ""


class Report(msgspec.Struct, frozen=True):
    """What `/readyz` answers."""

    status: Literal["ready", "not_ready"]
    tiers: tuple[TierReport, ...]

    @property
    def ready(self) -> bool:
        """Whether it is."""
        return self.status == "ready"


class Readiness:
    """Ready: it takes connections, and no needed tier fails."""

    def __init__(self, tiers: Sequence[TierHealth], *, serving: Callable[[], bool]) -> None:
        """`serving`: whether the process takes connections: not while it starts or drains."""
        self._tiers = tiers
        self._serving = serving

    def report(self) -> Report:
        """As it is now; a look at what the adapters know, no question to a tier."""
        tiers = tuple(TierReport(t.tier, t.needed, t.failure()) for t in self._tiers)
        fails = any(tier.needed and tier.failure for tier in tiers)
        return Report("ready" if self._serving() and not fails else "not_ready", tiers)
