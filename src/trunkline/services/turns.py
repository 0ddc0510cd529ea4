"""Turns: dear work is done by few at a time, so that everybody else's goes on beside it.

Coming back costs a member of thousands of conversations tens of milliseconds. Each of those who
do so at once comes back to the loop after every millisecond of it, and if all did so in turn,
the loop would come to nothing else.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from trunkline.errors import Overloaded
from trunkline.services.pacing import AT_ONCE

_CHEAP_TO_DEAR: Final = 2
_WAIT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0


class Turns:
    """Who waits is served in order; what is cheap does not wait for what is dear."""

    def __init__(self, *, dear: int) -> None:
        """`dear`: so many pieces of dear work at a time."""
        self._dear = asyncio.Semaphore(dear)
        self._cheap = asyncio.Semaphore(_CHEAP_TO_DEAR * dear)

    def of(self, conversations: int | None) -> AbstractAsyncContextManager[None]:
        """A turn for work on so many conversations, None: nobody knows.

        Raises `Overloaded` if it does not come within a minute.
        """
        is_cheap = conversations is not None and conversations <= AT_ONCE
        return _turn(self._cheap if is_cheap else self._dear)


@asynccontextmanager
async def _turn(free: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await free.acquire()
    except TimeoutError:
        raise Overloaded(retry_after_seconds=_RETRY_SECONDS) from None
    try:
        yield
    finally:
        free.release()
