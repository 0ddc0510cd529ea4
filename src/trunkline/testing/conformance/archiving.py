"""Suite of archiving: wherever an archiver ends, nothing is lost, doubled or left (I10)."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any, Final

import pytest

from trunkline.core import segments
from trunkline.core.tiering import is_whole
from trunkline.errors import (
    OutcomeUnknown,
    StorageUnavailable,
    TierUnavailable,
    TrunklineError,
)
from trunkline.model import Conversation, Entry, Seq
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.conformance.clock import SteppedClock
from trunkline.testing.conformance.stores import StoreMaker, Stores
from trunkline.testing.conformance.writer import Writer, view
from trunkline.testing.idle_load import IdleLoad
from trunkline.testing.steps import Ended, Moment, Stepped, Steps

GROUPS: Final = ("g", "h", "i", "j")
LONG_ENTRIES: Final = 140
"""More than an archiver copies at a time at the pace that is set here."""
SETTINGS: Final = ServiceSettings(newest_group=3, archive_lease=2, archive_entries_per_second=1_280)
AGAIN_SECONDS: Final = 1_000.0
"""Every lease has ended by then, and every pause after a failure."""


class ArchivingSuite:
    """Promise I10 of the hot store, its tasks and the cold store together.

    Fixtures: `make_store`, `writer`.
    """

    @pytest.mark.parametrize("moment", [m for m in Moment if m is not Moment.FROZEN])
    async def test_two_archivers_that_end_at_any_step_lose_nothing(
        self, make_store: StoreMaker, writer: Writer, moment: Moment
    ) -> None:
        """Both work on the same conversations; whoever comes after finishes it all."""
        async with _Archive.opened(make_store, writer) as archive:
            for step in count(1):
                await archive.append()
                steps = [Steps(step, moment) for _ in range(2)]
                await asyncio.gather(*(archive.archive(one) for one in steps))
                await archive.check()
                await archive.finish()
                if not any(one.reached.is_set() for one in steps):
                    break

    async def test_an_archiver_that_stood_still_past_its_lease_harms_nothing(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Another has done its work by then, and more was sent; it goes on all the same."""
        async with _Archive.opened(make_store, writer) as archive:
            for step in count(1):
                await archive.append()
                steps = Steps(step, Moment.FROZEN)
                async with asyncio.TaskGroup() as group:
                    frozen = group.create_task(archive.archive(steps))
                    stands = group.create_task(steps.reached.wait())
                    await asyncio.wait((frozen, stands), return_when=asyncio.FIRST_COMPLETED)
                    stands.cancel()
                    await archive.finish()
                    await archive.append()
                    steps.thaw.set()
                await archive.check()
                await archive.finish()
                if not steps.reached.is_set():
                    break


class _Archive:
    """Groups that are written to, archived, and compared with what was written."""

    def __init__(self, stores: Stores, writer: Writer, clock: SteppedClock) -> None:
        self._stores = stores
        self._writer = writer
        self._clock = clock
        self._bodies: dict[str, list[str]] = {}

    @staticmethod
    @asynccontextmanager
    async def opened(make_store: StoreMaker, writer: Writer) -> "AsyncIterator[_Archive]":
        async with make_store() as stores:
            archive = _Archive(stores, writer, make_store.clock)
            for name in GROUPS:
                await writer.append(stores.hot, writer.create(name, "ann", "c"))
                archive._bodies[name] = []
            yield archive

    async def append(self, long: int = LONG_ENTRIES) -> None:
        """A few messages to each group, and `long` to the first."""
        for name, bodies in self._bodies.items():
            new = [f"{name} {len(bodies) + n}" for n in range(long if name == "g" else 3)]
            drafts = [self._writer.message(name, "ann", body, body) for body in new]
            await self._writer.append(self._stores.hot, *drafts)
            bodies += new

    async def archive(self, steps: Steps) -> None:
        """One pass of an archiver whose stores are stepped."""
        hot, tasks = (
            Stepped(store, steps, StorageUnavailable("It is away."), OutcomeUnknown())
            for store in (self._stores.hot, self._stores.tasks)
        )
        away = TierUnavailable("It is away.")
        cold = Stepped(self._stores.cold, steps, away, away)
        with suppress(Ended, TrunklineError):
            await self._archiver(hot, tasks, cold).run_once()

    async def finish(self) -> None:
        """Another archiver does what is left, once it may; then everything is as it should be.

        What one who ended before the trim left in hot leaves it with the next entries.
        """
        await self.append(long=3)
        self._clock.advance(AGAIN_SECONDS)
        archiver = self._archiver(self._stores.hot, self._stores.tasks, self._stores.cold)
        for _ in range(2 * len(GROUPS)):
            if not (await self._stores.tasks.waiting()).conversations:
                break
            await archiver.run_once()
        assert (await self._stores.tasks.waiting()).conversations == 0
        assert not await self._stores.tasks.lease(len(GROUPS), AGAIN_SECONDS)
        for row, first in (await self.check()).values():
            assert row.archived_up_to == row.head
            assert first == row.head - SETTINGS.newest_group + 1, "what may leave hot has left it"

    async def check(self) -> Mapping[str, tuple[Conversation, int]]:
        """I1, I10: all is there, and what hot lacks cold has. Returns rows and hot's first seqs."""
        assert (await self._stores.tasks.waiting()).conversations <= len(GROUPS)
        found: dict[str, tuple[Conversation, int]] = {}
        for name, bodies in self._bodies.items():
            row, _ = await view(self._stores.hot, "ann", name)
            assert row.head == len(bodies) + 1
            stored = await self._stores.hot.read(row.key, Seq(0), row.head)
            first = stored[0].seq
            assert is_whole(stored, Seq(first - 1), row.head)
            assert first - 1 <= row.archived_up_to <= row.head
            cold = await self._cold(row)
            parts = [*cold[: first - 1], *self._writer.open(row, stored)]
            assert [entry.body for entry in parts[1:]] == bodies
            assert [entry.body for entry in cold[1:]] == bodies[: max(0, len(cold) - 1)]
            found[name] = (row, first)
        return found

    async def _cold(self, row: Conversation) -> list[Entry]:
        """What the cold tier holds of all that counts as archived."""
        cipher = self._writer.sealer.cipher(row.wrapped_key, row.place)
        entries: dict[Seq, Entry] = {}
        for segment in await self._stores.cold.read(row.key, Seq(0), row.archived_up_to):
            for entry in segments.open_segment(row, segment, cipher).entries:
                assert entries.setdefault(entry.seq, entry) == entry, "I2: segments differ"
        archived = [entries[seq] for seq in sorted(entries) if seq <= row.archived_up_to]
        assert is_whole(archived, Seq(0), row.archived_up_to)
        return archived

    def _archiver(self, hot: Any, tasks: Any, cold: Any) -> Archiver:
        # The time that passes for the leases does not pass for whoever stands still.
        clock = SteppedClock()
        return Archiver(
            hot, tasks, cold, self._writer.sealer, clock, Metrics(), SETTINGS, IdleLoad(),
            random.Random(1).getrandbits,
        )  # fmt: skip
