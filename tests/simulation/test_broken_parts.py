"""The simulation bites: with one part broken on purpose, one of few seeds breaks its promise."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import msgspec
import pytest

from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.client import Client
from trunkline.core.appending import AppendState, ConversationWrite, Decision
from trunkline.model import ConversationKey, Draft, Entry, WorkerId
from trunkline.ports.cached import CachedTier
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import Decide
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.fanout import FanOut
from trunkline.testing import simulation
from trunkline.testing.disk import SimulatedFile
from trunkline.testing.server import TINY_CACHE, SimulatedServer
from trunkline.wire.frames import Pull, Pulled

SEEDS = 90


def promises_broken(
    *,
    server_type: type[SimulatedServer] = SimulatedServer,
    client_type: type[Client] = Client,
    seeds: int = SEEDS,
) -> str:
    """What the first seed that fails was told; empty if none of them fails."""
    for seed in range(seeds):
        broken = simulation.run_seed(seed, server_type=server_type, client_type=client_type).broken
        if broken:
            return broken
    return ""


def nothing(*_: object) -> None:
    """Stands where something should have been done."""


class LyingFile:
    """A file whose sync returns at once: what it says to be on disk may not be."""

    def __init__(self, file: SimulatedFile) -> None:
        self._file = file

    def append(self, record: bytes) -> None:
        self._file.append(record)

    async def sync(self) -> None:
        await asyncio.sleep(0)

    def records(self) -> Sequence[bytes]:
        return self._file.records()


class AcksBeforeSync(SimulatedServer):
    def make_hot(self, file: SimulatedFile) -> MemoryHotStore:
        return MemoryHotStore(self._clock, LyingFile(file))


class ColdIsNotSynced(SimulatedServer):
    def make_cold(self, file: SimulatedFile) -> ColdStore:
        return super().make_cold(LyingFile(file))  # type: ignore[arg-type]


class PushingHot(MemoryHotStore):
    """Pushes what will be committed before it is."""

    fanout: FanOut

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        def decide_and_push(drafts: Sequence[Draft], state: AppendState) -> Decision:
            decision = decide(drafts, state)
            for write in decision.writes:
                self.fanout._push(write, None)
            return decision

        return await super().append(batch, decide_and_push)


class PushesBeforeCommit(SimulatedServer):
    def make_hot(self, file: SimulatedFile) -> MemoryHotStore:
        self.pushing = PushingHot(self._clock, file)
        return self.pushing

    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = super().make_backbone(stores)
        self.pushing.fanout = backbone.append._fanout
        return backbone


class ForgetfulHot(MemoryHotStore):
    """Knows no client message id."""

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        return await super().append(
            batch, lambda drafts, state: decide(drafts, msgspec.structs.replace(state, known={}))
        )


class DoesNotDeduplicate(SimulatedServer):
    def make_hot(self, file: SimulatedFile) -> MemoryHotStore:
        return ForgetfulHot(self._clock, file)


class PushesToWhoeverWasMember(SimulatedServer):
    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = super().make_backbone(stores)
        backbone.registry.unwatch = nothing  # type: ignore[method-assign]
        return backbone


class SlowCachedTier(MemoryCachedTier):
    """Takes long over what was committed: much happens between a commit and its fan-out."""

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        await asyncio.sleep(0.8)
        return await super().append(writes, stamp)


class FansOutLate(SimulatedServer):
    """Slow, but not broken."""

    def make_cached(self) -> CachedTier:
        return SlowCachedTier(self._clock, TINY_CACHE)


class ForgetsUnknownOutcomes(SimulatedServer):
    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = super().make_backbone(stores)
        for lane in backbone.append._lanes:
            lane._remember_unknown = nothing  # type: ignore[method-assign]
        return backbone


class AnswersPullsShort(SimulatedServer):
    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = super().make_backbone(stores)
        pull = backbone.pulls.pull

        async def pull_less(connection: Any, frame: Pull) -> Pulled:
            answer = await pull(connection, frame)
            return Pulled(answer.request, answer.runs)

        backbone.pulls.pull = pull_less  # type: ignore[method-assign]
        return backbone


class MarksAreNotStored(SimulatedServer):
    def make_backbone(self, stores: Stores) -> Backbone:
        backbone = super().make_backbone(stores)

        async def record(move: object) -> None:
            await asyncio.sleep(0)

        backbone.markers._record = record  # type: ignore[assignment, method-assign]
        return backbone


class TakesWhateverIsPushed(Client):
    """Ignores gaps: what comes later goes behind what is there."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        replica = self._endpoint.replica

        def arrived(held: Any, entries: list[Entry], now: float) -> int:
            fresh = [entry for entry in entries if entry.seq > held.last]
            if fresh:
                replica._extend(held, fresh)
            return len(fresh)

        replica._arrived = arrived  # type: ignore[method-assign]
        return self


class NeverPulls(Client):
    """Lives by pushes alone."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._endpoint.replica.behind = lambda now: []  # type: ignore[method-assign]
        return self


BROKEN_SERVERS: Mapping[type[SimulatedServer], tuple[str, ...]] = {
    AcksBeforeSync: ("I2", "I3", "I4", "I5", "I6"),
    ColdIsNotSynced: ("data_damaged", "I8"),
    PushesBeforeCommit: ("I2", "I5", "I8", "entries_lost"),
    DoesNotDeduplicate: ("I6",),
    PushesToWhoeverWasMember: ("I13", "entries_lost"),
    ForgetsUnknownOutcomes: ("not complete", "I13"),
    AnswersPullsShort: ("I8",),
    MarksAreNotStored: ("I4", "not complete"),
}
BROKEN_CLIENTS: Mapping[type[Client], tuple[str, ...]] = {
    TakesWhateverIsPushed: ("I14", "I2"),
    NeverPulls: ("not complete",),
}


def names(broken: str, promises: tuple[str, ...]) -> bool:
    """Whether what was told names one of the promises."""
    told = [line for line in broken.splitlines() if "Broken: " in line]
    return any(promise in line for promise in promises for line in told)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server_type", BROKEN_SERVERS, ids=lambda kind: kind.__name__)
def test_a_broken_server_is_found_out(server_type: type[SimulatedServer]) -> None:
    broken = promises_broken(server_type=server_type)
    assert names(broken, BROKEN_SERVERS[server_type]), broken


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client_type", BROKEN_CLIENTS, ids=lambda kind: kind.__name__)
def test_a_broken_client_is_found_out(client_type: type[Client]) -> None:
    broken = promises_broken(client_type=client_type)
    assert names(broken, BROKEN_CLIENTS[client_type]), broken


def test_a_server_that_is_only_slow_is_not_found_out() -> None:
    assert not promises_broken(server_type=FansOutLate, seeds=8)
