"""Load of a store to which nobody sends."""


class IdleLoad:
    """A `ports.load.Load`: what can wait need not."""

    async def is_busy(self) -> bool:
        """Never."""
        return False
