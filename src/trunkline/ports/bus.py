"""Bus: carries packets between the inboxes of workers, and knows who serves which user."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import NamedTuple, Protocol

from trunkline.model import ConversationKey, UserId, WorkerId


class Forgotten(NamedTuple):
    """The tier had lost that this worker watches these conversations and serves these users.

    It knows it again: only what was published meanwhile may be missing.
    """

    keys: Collection[ConversationKey]
    users: Collection[UserId]


class Bus(Protocol):
    """May lose packets, repeats none, and keeps the order of one publisher's to one inbox.

    A packet is sealed; the bus neither opens nor keeps it. `present` and `absent` swallow a
    bus that does not answer: the loss costs time, never data.
    """

    async def publish(self, packets: Mapping[WorkerId, bytes]) -> Collection[WorkerId]:
        """Puts one packet into each of these inboxes, in one round trip.

        Returns those whose inbox nobody listens to. Raises `TierUnavailable`; whether any
        packet arrived is unknown then.
        """
        ...

    def received(self) -> AsyncIterator[bytes | Forgotten | None]:
        """This worker's inbox, without end.

        None: the subscription was made anew, or the server is another one; anything before
        may be lost, and so may what this worker registered. It comes too once the server
        answers again after a `present`, or a `watch` of the cached tier, that was swallowed.
        """
        ...

    async def present(self, users: Collection[UserId]) -> None:
        """From when it returns, `workers_of` names this worker for these users."""
        ...

    async def absent(self, users: Collection[UserId], worker: WorkerId | None = None) -> None:
        """This worker (None), or one that is dead, serves these users no more."""
        ...

    async def workers_of(self, users: Collection[UserId]) -> Mapping[UserId, Collection[WorkerId]]:
        """Which OTHER workers serve each of these users; absent where none.

        Raises `TierUnavailable`.
        """
        ...
