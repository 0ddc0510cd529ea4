"""Load: whether the online service has all it can do, so that what can wait yields."""

from typing import Protocol


class Load(Protocol):
    """A measure of the store that the archiver shares with the sends."""

    async def is_busy(self) -> bool:
        """Whether sends wait longer than they should, now.

        Asked a few times a second at most; may measure then, within bounded time. Raises
        nothing: a store that does not answer is busy.
        """
        ...
