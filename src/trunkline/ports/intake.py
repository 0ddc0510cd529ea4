"""Intake: how a hot store takes over what another one holds, byte for byte."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trunkline.model import Conversation, ConversationKey, OffsetMove
from trunkline.ports.inspection import HotInspection, Listing


class HotIntake(Protocol):
    """Conversations keep their keys, their wrapped keys and every sealed body.

    Every method may raise `StorageUnavailable` or `OutcomeUnknown`: then the same call again
    settles it.
    """

    async def held(self, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
        """Rows that have the id or the key of one of these."""
        ...

    async def take_lists(
        self, listings: Mapping[ConversationKey, Sequence[Listing]], offsets: Sequence[OffsetMove]
    ) -> None:
        """Takes lines of users' lists and read offsets; a higher version or seq stays.

        What is listed is seen only once its conversation is there.
        """
        ...

    async def take(self, conversation: Conversation, source: HotInspection) -> None:
        """Takes a conversation, all that `source` holds of it but lists and offsets.

        It is there as a whole when this returns, and not at all before. Raises
        `TargetNotEmpty` if its id or key is taken, `ShardMoved`.
        """
        ...
