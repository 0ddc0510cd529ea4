"""The simulation of several workers bites: with one part broken, one of few seeds shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from trunkline.core.packets import Frame
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.crossing import Crossing
from trunkline.services.registry import Connection, Watchers
from trunkline.testing.server import TINY, SimulatedServer
from trunkline.testing.simulation import run_seed

SEEDS = 30
NO_SWEEP = msgspec.structs.replace(TINY, sweep_seconds=1e6)


def nothing(*_: object, **__: object) -> None:
    """Stands where something should have been done."""


class NeverSweeps(SimulatedServer):
    """Not broken: what a gap, a resend or a retry finds needs no sweep."""

    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = Backbone(stores, NO_SWEEP)
        assert backbone._crossing is not None
        self.break_it(backbone._crossing)
        return backbone

    def break_it(self, crossing: Crossing) -> None:
        """Breaks nothing."""


class MindsNoGap(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        crossing._inbox._missed = nothing  # type: ignore[method-assign]


class ForgetsWhatItCouldNotPublish(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        crossing._repairs.unpublished = nothing  # type: ignore[method-assign]
        crossing._publisher.lost = nothing


class WritesNoNotes(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        crossing._publisher.note = nothing  # type: ignore[method-assign]


class ComparesNoHeads(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        async def compare(keys: Iterable[int]) -> None:
            """Finds nothing."""

        crossing._repairs._compare = compare  # type: ignore[assignment, method-assign]


class IgnoresVersions(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        fanout = crossing.fanout
        show = fanout.show

        def show_at_once(frame: Frame, sole_sender: Connection | None = None) -> int:
            watchers = fanout._registry.watched(frame.key)
            if watchers is not None:
                watchers.version = max(watchers.version, frame.version)
            return show(frame, sole_sender)

        fanout.show = show_at_once  # type: ignore[method-assign]
        crossing._memberships.show = show_at_once


class IgnoresWhereAViewBegins(NeverSweeps):
    def break_it(self, crossing: Crossing) -> None:
        fanout = crossing.fanout
        write = fanout._write

        def write_to_all(frame: Frame, watchers: Watchers, sole_sender: Any) -> int:
            for connection in watchers:
                watchers[connection] = frame.first
            return write(frame, watchers, sole_sender)

        fanout._write = write_to_all  # type: ignore[method-assign]


BROKEN: Mapping[type[NeverSweeps], str] = {
    MindsNoGap: "not complete",
    ForgetsWhatItCouldNotPublish: "not complete",
    WritesNoNotes: "not complete",
    ComparesNoHeads: "not complete",
    IgnoresVersions: "I13",
    IgnoresWhereAViewBegins: "I13",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server_type", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_worker_is_found_out(server_type: type[NeverSweeps]) -> None:
    told: list[str] = []
    for seed in range(SEEDS):
        broken = run_seed(seed, server_type=server_type, workers=2).broken
        told += [line for line in broken.splitlines() if "Broken: " in line]
        if any(BROKEN[server_type] in line for line in told):
            return
    pytest.fail("; ".join(told) or "nothing was found")


@pytest.mark.timeout(600)
def test_workers_that_never_sweep_are_not_found_out() -> None:
    for seed in range(8):
        assert not run_seed(seed, server_type=NeverSweeps, workers=2).broken
