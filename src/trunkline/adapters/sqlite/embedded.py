"""Puts the embedded store together on one data directory, and takes it apart again."""

import asyncio
import logging
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline import sqlite
from trunkline.adapters.sqlite.cold import ColdFile, SqliteColdStore
from trunkline.adapters.sqlite.commits import Commits
from trunkline.adapters.sqlite.database import log_file_bytes, translated
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.hot import SqliteHotStore
from trunkline.adapters.sqlite.identity import DirectoryIdentity
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.keys import SqliteKeys
from trunkline.adapters.sqlite.overlay import Overlay
from trunkline.adapters.sqlite.recovery import check_wals, recover
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.supervise import slicer
from trunkline.adapters.sqlite.tables import Tables
from trunkline.adapters.sqlite.tasks import SqliteTaskStore
from trunkline.adapters.sqlite.upkeep import Upkeep
from trunkline.adapters.sqlite.witness import FILE, Reached, Witness
from trunkline.errors import TrunklineError
from trunkline.ports.clock import Clock
from trunkline.ports.readiness import TierHealth
from trunkline.ports.readings import Reading

log = logging.getLogger(__name__)


class EmbeddedStores:
    """`hot`, `tasks`, `cold`, `keys` and `identity` of one data directory, between `async with`
    and its end.

    At the end everything is materialised, the journal emptied, the WALs are gone.
    """

    hot: SqliteHotStore
    tasks: SqliteTaskStore
    cold: SqliteColdStore
    keys: SqliteKeys
    identity: DirectoryIdentity

    def __init__(
        self,
        path: Path,
        settings: Settings,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        jitter: Callable[[], float],
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._random_bytes = random_bytes
        self._jitter = jitter
        self._stack = ExitStack()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        await self._group.__aenter__()
        self._group.create_task(self._upkeep.run())
        self._group.create_task(self._witness.run(self._settings.witness_seconds, self._reached))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._upkeep.stop()
            self._witness.stop()
            # The group learns only of its own cancelling: other errors of the body stay
            # what they are and are not wrapped.
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)
        finally:
            try:
                await self._finish()
            finally:
                self._stack.close()

    async def materialise(self) -> None:
        """Moves everything committed so far into the tables, now."""
        await self._upkeep.materialise()

    def readings(self) -> list[Reading]:
        """The library's version, and how long each file's write-ahead log is."""
        files = (self._directory.journal, self._directory.tables, self._directory.cold)
        return [
            Reading("trunkline_sqlite_info", sqlite.library_version(), lambda: 1),
            *(
                Reading("trunkline_sqlite_log_bytes", file.name, partial(log_file_bytes, file))
                for file in files
            ),
        ]

    def health(self) -> list[TierHealth]:
        """Whether commits, slices and the cold file do their work."""
        return [
            TierHealth("journal", True, lambda: self._commits.failure or self.hot.failure),
            TierHealth("tables", False, lambda: self._upkeep.failure),
            TierHealth("cold", False, lambda: self.cold.failure),
        ]

    async def _finish(self) -> None:
        try:
            await self._commits.settle()
            await self._commits.stop()
            await self._upkeep.materialise()
            await self._upkeep.drop_materialised()
            self._journal.shrink()
        except TrunklineError as failure:
            # Nothing is lost: the next opening goes on from the journal.
            log.warning("not all was tidied up on closing: %s: %s", failure.code, failure)

    def _identify(self, directory: DataDirectory, reached: Reached) -> None:
        """Says which store this is; another generation, if it was copied or restored."""
        self.identity = DirectoryIdentity(directory, self._random_bytes)
        self._witness = witness = Witness(directory)
        with translated(FILE):
            if not directory.is_new and (why := witness.contradiction(reached)):
                self.identity.begin_now(why)
            witness.write(reached)
            directory.complete(self._random_bytes, self._clock.now_ms())

    async def _reached(self) -> Reached:
        commit = self._state.last_id  # before the cold file: what it holds came in later
        return Reached(commit, await self.cold.last_row())

    def _thread(self, name: str) -> ThreadPoolExecutor:
        return self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=name))

    def _open(self) -> None:
        settings = self._settings
        directory = DataDirectory.open(self._path, lock_wait_seconds=settings.lock_wait_seconds)
        self._directory = directory
        self._stack.callback(directory.close)
        check_wals(directory)
        commit_tables = Tables.make(directory.tables, settings.tables_cache_bytes)
        self._stack.callback(commit_tables.close)
        tables = Tables(directory.tables, settings.tables_cache_bytes)
        self._stack.callback(tables.close)
        cold = ColdFile(directory.cold)
        self._stack.callback(cold.close)
        self._journal = Journal(directory.journal, 2 * settings.journal_wal_bytes)
        self._stack.callback(self._journal.close)
        state = recover(self._journal, commit_tables, settings)
        self._identify(directory, Reached(state.last_id, cold.last_row()))
        worker = slicer(directory, settings)
        self._stack.callback(worker.close)
        commit_thread, ask_thread, cold_thread, slice_thread = map(
            self._thread, ("commit", "ask", "cold", "slice")
        )
        overlay = Overlay(tables, ask_thread, self.materialise)
        self._state = state
        self._commits = Commits(self._journal, commit_thread, state, self._clock)
        self.hot = SqliteHotStore(
            state,
            self._commits,
            (Overlay(commit_tables, commit_thread, self.materialise), overlay),
            settings,
        )
        self.tasks = SqliteTaskStore(state, self.hot, self._clock)
        self.cold = SqliteColdStore(cold, cold_thread)
        self.keys = SqliteKeys(self.hot, overlay)
        self._upkeep = Upkeep(
            state,
            self._commits,
            self.hot,
            worker,
            directory,
            slice_thread,
            settings,
            self._clock,
            self._jitter,
        )


def open_embedded(
    path: Path,
    settings: Settings,
    clock: Clock,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
    jitter: Callable[[], float] = random.random,
) -> EmbeddedStores:
    """The stores of a data directory: `async with open_embedded(...) as stores:`.

    Entering raises `DataDirLocked`, `DataDirNewer`, `DataDirInvalid` (nothing was touched
    then) or `DataDamaged`, which names the file.
    """
    return EmbeddedStores(path, settings, clock, random_bytes, jitter)
