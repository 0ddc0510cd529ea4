"""Bus: carries packets between workers' inboxes, and says who serves whom (DESIGN section 3)."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

from trunkline.model import UserId, WorkerId


class Bus(Protocol):
    """May lose packets, repeats none, keeps one publisher's order."""

    async def publish(self, packets: Mapping[WorkerId, bytes]) -> Collection[WorkerId]:
        """Sends each worker its packet, in one round trip.

        Returns those whose inbox nobody listens to: their entries may be removed. Raises
        `TierUnavailable` when the bus did not answer within its bound; the packets may
        have arrived or not.
        """
        ...

    def received(self) -> AsyncIterator[bytes | None]:
        """The packets of this worker's inbox, for one reader.

        None: the subscription was made anew, anything before it may be lost.
        """
        ...

    async def present(self, users: Collection[UserId]) -> None:
        """This worker serves connections of these users."""
        ...

    async def absent(self, users: Collection[UserId], worker: WorkerId | None = None) -> None:
        """This worker, or one that died, serves none of these users any more."""
        ...

    async def workers_of(self, users: Collection[UserId]) -> Mapping[UserId, Collection[WorkerId]]:
        """Which other workers serve these users; absent where none.

        Raises `TierUnavailable`.
        """
        ...
