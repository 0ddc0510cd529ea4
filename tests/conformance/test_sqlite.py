"""The embedded store keeps the promises of its ports, from the journal and from the tables."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from trunkline.adapters.sqlite.embedded import EmbeddedStores, open_embedded
from trunkline.adapters.sqlite.settings import Settings
from trunkline.core.appending import Decision
from trunkline.model import Draft
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import Decide, HotStore
from trunkline.ports.keys import WrappedKeys
from trunkline.ports.tasks import TaskStore
from trunkline.testing.conformance import (
    ArchivingSuite,
    ColdStoreSuite,
    HeadsSuite,
    HotStoreSuite,
    MembershipSuite,
    ResendingSuite,
    SteppedClock,
    TaskStoreSuite,
    WrappedKeysSuite,
    Writer,
)
from trunkline.testing.conformance.writer import seq_of

# Nothing moves by itself, so that a copy of the files is what a crash would leave.
QUIET = Settings(materialiser="thread", idle_seconds=3_600.0, slice_age_seconds=3_600.0)
FEW_ROWS = Settings(
    materialiser="thread", idle_seconds=3_600.0, slice_age_seconds=3_600.0,
    cached_conversations=1, transaction_entries=1,
)  # fmt: skip


class MaterialisingHotStore:
    """The hot store, every append of which is moved into the tables at once."""

    def __init__(self, stores: EmbeddedStores) -> None:
        self._stores = stores

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        decision = await self._stores.hot.append(batch, decide)
        await self._stores.materialise()
        return decision

    def __getattr__(self, name: str) -> object:
        return getattr(self._stores.hot, name)


@dataclass
class OpenStores:
    hot: HotStore
    tasks: TaskStore
    cold: ColdStore
    keys: WrappedKeys


class EmbeddedMaker:
    def __init__(
        self, path: Path, settings: Settings, wrap: Callable[[EmbeddedStores], HotStore]
    ) -> None:
        self.clock = SteppedClock()
        self._path = path / "data"
        self._settings = settings
        self._wrap = wrap
        self._crashes = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[OpenStores]:
        async with open_embedded(self._path, self._settings, self.clock) as stores:
            yield OpenStores(self._wrap(stores), stores.tasks, stores.cold, stores.keys)

    async def crash(self) -> None:
        self._crashes += 1
        left = self._path.with_name(f"data after crash {self._crashes}")
        shutil.copytree(self._path, left)
        self._path = left


@pytest.fixture(params=["journal", "tables"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddedMaker:
    if request.param == "journal":
        return EmbeddedMaker(tmp_path, QUIET, lambda stores: stores.hot)
    return EmbeddedMaker(tmp_path, FEW_ROWS, MaterialisingHotStore)


class TestHotStore(HotStoreSuite): ...


class TestHeads(HeadsSuite): ...


class TestMembership(MembershipSuite): ...


class TestResending(ResendingSuite): ...


class TestTaskStore(TaskStoreSuite): ...


class TestArchiving(ArchivingSuite): ...


class TestWrappedKeys(WrappedKeysSuite):
    @pytest.fixture
    def make_keys(self, make_store: EmbeddedMaker) -> EmbeddedMaker:
        return make_store


class TestColdStore(ColdStoreSuite): ...


async def test_a_conversation_that_falls_out_of_the_cache_is_not_created_anew(
    tmp_path: Path, writer: Writer
) -> None:
    """I2, I3: room is made for a batch before, not after, it was noted what is cached."""
    settings = msgspec.structs.replace(QUIET, cached_conversations=2)
    async with open_embedded(tmp_path / "data", settings, SteppedClock()) as stores:
        others = [f"user{i}" for i in range(8)]
        for other in others:
            first = await writer.append(stores.hot, writer.first_send("ann", other, "1"))
            assert seq_of(first[0]) == 2
        await stores.materialise()
        for other in others:
            again = await writer.append(stores.hot, writer.first_send("ann", other, "2"))
            assert seq_of(again[0]) == 3
