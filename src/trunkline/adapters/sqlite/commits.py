"""Lets one commit at a time into the journal; memory changes only after it is on disk."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Final

import msgspec

from trunkline import sqlite
from trunkline.adapters.sqlite.database import translate
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.records import Commit, Record
from trunkline.adapters.sqlite.state import State
from trunkline.errors import (
    OutcomeUnknown,
    ShuttingDown,
    StorageUnavailable,
    TrunklineError,
)
from trunkline.ports.clock import Clock
from trunkline.sqlite import Fault

_DROPPED_AT_ONCE: Final = 16
"""Journal rows that a commit drops: more than one, so that they go faster than they come."""

Answer = asyncio.Future[None]


class _Unsettled(msgspec.Struct, frozen=True):
    """A commit as it was submitted."""

    journal_id: int
    commit: Commit
    floor: int


class Commits:
    """Who wants to commit takes the turn, decides, and then submits or gives the turn back.

    A caller that is cancelled while its commit is under way leaves the turn with the commit:
    it ends when the outcome is known and the state has it.

    Attributes:
        failure: the code of the error that the last commit ended with, or nothing.
        last_commit: when it was made, on the monotonic clock.
    """

    def __init__(self, journal: Journal, writer: Executor, state: State, clock: Clock) -> None:
        """`writer`: the one thread that uses `journal`."""
        self._journal = journal
        self._writer = writer
        self._state = state
        self._clock = clock
        self._turn = asyncio.Lock()
        self._refusal: TrunklineError | None = None
        self._unsettled: _Unsettled | None = None
        self._floor = journal.first() - 1
        self.last_commit = clock.monotonic()
        self.failure = ""

    @property
    def settled(self) -> bool:
        """Whether every outcome so far is known."""
        return self._unsettled is None

    async def take_turn(self) -> None:
        """Waits until no other commit is under way; raises if none is possible now."""
        await self._turn.acquire()
        if self._refusal is not None:
            self._turn.release()
            raise type(self._refusal)(self._refusal.detail)

    def give_turn_back(self) -> None:
        """Ends a turn that commits nothing."""
        self._turn.release()

    async def stop(self) -> None:
        """Refuses what comes from now on, after waiting for what is under way."""
        await self._turn.acquire()
        if self._refusal is None:
            self._refusal = ShuttingDown()
        self._turn.release()

    def submit(self, commit_records: Sequence[Record], version: int, answers: list[Answer]) -> None:
        """Commits as one journal row and ends the turn when it is settled.

        `answers` get the outcome. `StorageFull`, `StorageUnavailable`: nothing was stored.
        `OutcomeUnknown`: nothing more is accepted until `settle` has found out.
        """
        loop = asyncio.get_running_loop()
        commit = Commit(self._clock.now_ms(), version, tuple(commit_records))
        journal_id = self._state.last_id + 1
        floor = min(self._state.watermark, self._floor + _DROPPED_AT_ONCE)
        done: Future[int] = self._writer.submit(self._journal.append, journal_id, commit, floor)

        def settle() -> None:
            try:
                error = self._settle(journal_id, commit, floor, done)
            finally:
                self._turn.release()
            for answer in answers:
                if answer.done():
                    continue
                if error is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(error)
                    answer.exception()  # whoever waited may have been cancelled

        done.add_done_callback(lambda _: loop.call_soon_threadsafe(settle))

    def _settle(
        self, journal_id: int, commit: Commit, floor: int, done: Future[int]
    ) -> BaseException | None:
        error = done.exception()
        if error is None:
            self._committed(_Unsettled(journal_id, commit, floor), done.result())
            return None
        if not isinstance(error, sqlite.Error | OSError):
            return error  # it never came to writing
        reason = translate(error, "journal.db")
        if sqlite.fault_of(error) not in (Fault.FULL, Fault.BUSY):
            self._unsettled = _Unsettled(journal_id, commit, floor)
            self._refusal = StorageUnavailable(
                f"It is being found out what a commit left whose outcome is unknown ({error})."
            )
            reason = OutcomeUnknown()
        self.failure = reason.code
        return reason

    def _committed(self, done: "_Unsettled", body_bytes: int) -> None:
        self._floor = done.floor
        self._state.apply(done.journal_id, done.commit, body_bytes)
        self.last_commit = self._clock.monotonic()
        self.failure = ""

    async def settle(self) -> None:
        """Opens the journal anew after an unknown outcome, takes over what was committed after
        all, and lets commits in again. Raises what keeps it from that: then it is tried again.
        """
        await self._turn.acquire()
        unsettled = self._unsettled
        if unsettled is None:
            self._turn.release()
            return
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        done = self._writer.submit(self._journal.settle, unsettled.journal_id)

        def take_over() -> None:
            error = done.exception()
            if error is None:
                body_bytes = done.result()
                if body_bytes is not None:
                    self._committed(unsettled, body_bytes)
                self._unsettled = self._refusal = None
                self.failure = ""
            self._turn.release()
            if error is not None and not answer.done():
                answer.set_exception(error)
            elif not answer.done():
                answer.set_result(None)

        done.add_done_callback(lambda _: loop.call_soon_threadsafe(take_over))
        await asyncio.shield(answer)

    async def probe(self) -> None:
        """Commits nothing, as a commit would be: raises what one would fail with now."""
        await self.take_turn()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._journal.reserve)
        except BaseException:
            self.give_turn_back()
            raise
        answer: Answer = loop.create_future()
        self.submit((), self._state.version, [answer])
        await asyncio.shield(answer)

    async def drop_some(self) -> bool:
        """Drops some journal rows that the tables hold; whether there were any."""
        watermark = self._state.watermark
        if self._floor >= watermark:
            return False
        if not await self._between(lambda: self._journal.delete(watermark)):
            self._floor = watermark
        return self._floor < watermark

    @property
    def log_bytes(self) -> int:
        """How long the journal's write-ahead log is, before it starts over."""
        return self._journal.log_bytes

    async def checkpoint(self) -> bool:
        """Copies the WAL between two commits, so that it starts over; not if a reader is there."""
        return await self._between(self._journal.checkpoint)

    async def empty_log(self) -> bool:
        """The same, and gives its disk space back."""
        return await self._between(self._journal.empty_log)

    async def _between(self, work: Callable[[], bool]) -> bool:
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        done = self._writer.submit(work)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._turn.release))
        return await asyncio.wrap_future(done)
