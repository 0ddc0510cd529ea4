"""Reads what journal and tables hold together: the one way to ask the tables of an open store.

Commits wait in memory until a slice has moved them into the tables, and are freed then. What is
pending is therefore taken first and the tables are asked after it: what moves between the two is
seen twice, never missed. The other way round it could be seen by neither.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Concatenate, ParamSpec, TypeVar

from trunkline.adapters.sqlite.tables import Tables

P = TypeVar("P")
A = TypeVar("A")
Q = ParamSpec("Q")


class Overlay:
    """A connection to the tables, below what is pending."""

    def __init__(
        self, tables: Tables, thread: Executor, materialise: Callable[[], Awaitable[None]]
    ) -> None:
        """`thread`: the one that uses `tables`. `materialise`: moves all that is committed."""
        self._tables = tables
        self._thread = thread
        self._materialise = materialise
        self.file = tables.file

    async def read(
        self,
        pending: P,
        question: Callable[Concatenate[Tables, Q], A],
        *arguments: Q.args,
        **named: Q.kwargs,
    ) -> tuple[P, A]:
        """What is pending, and the tables' answer: the caller lays the one over the other.

        `pending` is a value, so that it was taken before the tables are asked. It is the
        caller's own: freeing empties the lists of a slot.
        """
        return pending, await self._ask(question, *arguments, **named)

    async def read_moved(
        self,
        question: Callable[Concatenate[Tables, Q], A],
        *arguments: Q.args,
        **named: Q.kwargs,
    ) -> A:
        """The tables' answer, once all that was committed before is in them: for a few rare
        questions about everything.
        """
        await self._materialise()
        return await self._ask(question, *arguments, **named)

    async def _ask(
        self,
        question: Callable[Concatenate[Tables, Q], A],
        *arguments: Q.args,
        **named: Q.kwargs,
    ) -> A:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: question(self._tables, *arguments, **named)
        )
