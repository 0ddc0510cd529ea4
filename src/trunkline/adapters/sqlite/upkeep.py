"""Decides when slices move into the tables and when the journal's WAL starts over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from trunkline.adapters.sqlite.commits import Commits
from trunkline.adapters.sqlite.database import log_file_bytes
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.hot import SqliteHotStore
from trunkline.adapters.sqlite.materialise import LOG_BYTES
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.state import State
from trunkline.adapters.sqlite.supervise import Slicer
from trunkline.core.aging import step_ms
from trunkline.errors import TrunklineError
from trunkline.ports.clock import Clock

_LOOK_SECONDS: Final = 0.05
_READER_SECONDS: Final = 1.0
"""So long after a reader was in the way of the log it is tried again."""
_MEND_SECONDS: Final = 0.25
_BACK_OFF_SECONDS: Final = (0.1, 5.0)

log = logging.getLogger(__name__)


class Upkeep:
    """Runs beside the store, as one task, until it is told to stop.

    `failure` is the code of the error that the last slice ended with, or nothing.
    """

    def __init__(
        self,
        state: State,
        commits: Commits,
        hot: SqliteHotStore,
        slicer: Slicer,
        directory: DataDirectory,
        thread: Executor,
        settings: Settings,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """`thread`: for slices. `random`: 0 to 1, for jitter."""
        self._state = state
        self._commits = commits
        self._hot = hot
        self._slicer = slicer
        self._directory = directory
        self._thread = thread
        self._settings = settings
        self._clock = clock
        self._random = random
        self._stopping = asyncio.Event()
        self._failures = 0
        self._sliced = self._aged = clock.monotonic()
        self._aged_ms = clock.now_ms()
        self._mending = ""
        self.failure = ""
        self._slicing = asyncio.Lock()

    def stop(self) -> None:
        """Lets `run` end after what it is doing."""
        self._stopping.set()

    async def run(self) -> None:
        """Looks for work until stopped; a failure is logged and tried again later."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._slice_if_due))
            group.create_task(self._repeat(self._checkpoint_if_due))
            group.create_task(self._repeat(self._mend_if_failing))

    async def materialise(self) -> None:
        """Moves everything committed so far into the tables."""
        up_to = self._state.last_id
        while self._state.watermark < up_to:
            await self._slice(min(up_to, self._state.slice_end(self._settings.slice_entries)))

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            await self._pause(_LOOK_SECONDS)
            await self._guarded(work)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _due(self) -> bool:
        state, settings = self._state, self._settings
        if state.last_id <= state.watermark:
            return False
        return (
            state.entries >= min(settings.slice_entries, settings.pending_entries)
            or state.bytes >= settings.slice_bytes
            or self._clock.monotonic() - self._sliced >= settings.slice_age_seconds
            or self._quiet()
        )

    async def _slice_if_due(self) -> None:
        if self._due():
            await self._slice(self._state.slice_end(self._settings.slice_entries))
        else:
            await self._drop_if_quiet()

    async def _slice(self, up_to_inclusive: int) -> None:
        async with self._slicing:
            loop = asyncio.get_running_loop()
            now, now_ms = self._clock.monotonic(), self._clock.now_ms()
            step = step_ms(int((now - self._aged) * 1_000), now_ms - self._aged_ms)
            try:
                watermark = await loop.run_in_executor(
                    self._thread, self._slicer.slice, up_to_inclusive, step
                )
            except TrunklineError as error:
                self.failure = error.code
                raise
            self.failure = ""
            self._sliced = self._clock.monotonic()
            if watermark > self._state.watermark:  # else the step was not taken
                self._aged, self._aged_ms = now, now_ms
            for _ in self._state.free(watermark):
                self._hot.freed()
                await asyncio.sleep(0)

    async def _drop_if_quiet(self) -> None:
        """Drops journal rows that the tables hold; under load the commits do so themselves."""
        if self._quiet():
            await self.drop_materialised()

    def _quiet(self) -> bool:
        since = self._clock.monotonic() - self._commits.last_commit
        return since >= self._settings.idle_seconds

    async def drop_materialised(self) -> None:
        """Drops all journal rows that the tables hold, in small transactions."""
        more = True
        while more:
            more = await self._commits.drop_some()

    async def _checkpoint_if_due(self) -> None:
        """Lets the journal's WAL start over before it is long.

        A reader from outside may be in the way: then it grows until that one is gone. The next
        commit cuts it; while there is none, what both logs took is given back here.
        """
        bound = self._settings.journal_wal_bytes
        if self._commits.log_bytes >= bound:
            if not await self._commits.checkpoint():
                await self._pause(_READER_SECONDS)
        elif self._quiet() and log_file_bytes(self._directory.journal) > 2 * bound:
            if not await self._commits.empty_log():
                await self._pause(_READER_SECONDS)
        elif self._quiet() and log_file_bytes(self._directory.tables) > LOG_BYTES:
            await self._slice(self._state.watermark)
            await self._pause(_READER_SECONDS)

    async def _mend_if_failing(self) -> None:
        """Settles an unknown outcome, and tries what failed: nobody else may while it fails."""
        commits = self._commits
        if not commits.failure:
            return
        try:
            await (commits.probe() if commits.settled else commits.settle())
        except TrunklineError as error:
            if self._mending != error.code:
                self._mending = error.code
                log.error("no commit is possible: %s: %s", error.code, error)
            await self._pause(_MEND_SECONDS * (0.5 + self._random()))
        else:
            self._mending = ""
            log.warning("commits are possible again")

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs work that may fail as the disk may; it is tried again after a growing pause."""
        try:
            await work()
        except TrunklineError as error:
            least, most = _BACK_OFF_SECONDS
            wait = min(most, least * 2**self._failures) * (0.5 + self._random())
            self._failures += 1
            log.error("upkeep failed, again in %.1f s: %s: %s", wait, error.code, error)
            await self._pause(wait)
        else:
            self._failures = 0
