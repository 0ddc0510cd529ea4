"""What a maker gives to the suites of the hot store, its tasks, and the cold store."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.tasks import TaskStore
from trunkline.testing.conformance.clock import SteppedClock


class Stores(Protocol):
    """Stores that are open over the same data."""

    @property
    def hot(self) -> HotStore:
        """The hot store."""
        ...

    @property
    def tasks(self) -> TaskStore:
        """The hot store's archive tasks."""
        ...

    @property
    def cold(self) -> ColdStore:
        """The cold store."""
        ...


class StoreMaker(Protocol):
    """Opens stores: empty ones first, and the same data again each further time."""

    @property
    def clock(self) -> SteppedClock:
        """The clock that the stores go by."""
        ...

    def __call__(self) -> AbstractAsyncContextManager[Stores]:
        """Opens the data; closes the stores in order at the context's end."""
        ...

    async def crash(self) -> None:
        """Turns to what a crash at this moment would leave: the next opening finds that.

        Called while stores are open; these are abandoned, and only closed to free what
        they hold.
        """
        ...
