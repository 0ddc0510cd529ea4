"""TaskStore: what is to be archived, leased so that many archivers share it (DESIGN section 7)."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from trunkline.model import Conversation, Seq


class ArchiveTask(msgspec.Struct, frozen=True, gc=False):
    """A conversation whose head is beyond archived_up_to; `token` proves the lease."""

    conversation: Conversation
    token: int
    attempts: int = 0


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """What is not yet fully archived.

    Attributes:
        conversations: how many.
        oldest_seconds: how long the one waits that waits longest, by the store's clock; a
            lease or a failure does not end it. 0 if none waits.
    """

    conversations: int
    oldest_seconds: float


class TaskStore(Protocol):
    """Lives in the hot store, so that no wake-up is lost between append and archive."""

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        """Up to `limit` tasks that nobody holds, longest waiting first."""
        ...

    async def archived(self, progress: Sequence[tuple[ArchiveTask, Seq]]) -> None:
        """Raises archived_up_to, of many conversations in one transaction.

        Entries up to there were read back from the cold tier (I10). A token that is no
        longer the lease's changes nothing.
        """
        ...

    async def done(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases, and each task whose head = archived_up_to."""
        ...

    async def failed(self, task: ArchiveTask, code: str, again_after_seconds: float) -> None:
        """Ends the lease; the task waits before it is leased again."""
        ...

    async def give_back(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases as if they had not been: no attempt counts, and none has to wait."""
        ...

    async def waiting(self) -> Waiting:
        """What is not yet fully archived."""
        ...
