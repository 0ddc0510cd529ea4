"""HotStore: the durable newest part, where every write goes first (DESIGN sections 3, 5)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from trunkline.core.appending import AppendState, Decision
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)

Decide = Callable[[Sequence[Draft], AppendState], Decision]


class HotStore(Protocol):
    """Keeps conversations, members, the newest entries, markers and offsets.

    Every method may raise `StorageUnavailable` (retryable); a write also `StorageFull`
    and `OutcomeUnknown`; an append also `BatchRefused`, where one of its drafts may be why, and
    parts of the batch may go through. What returned is on disk and readable from then on (I4).
    """

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """Appends a batch as one transaction.

        Reads what the drafts need (conversation rows, the member rows of sender and
        named users, known client message ids), calls the pure `decide` with it, writes
        what it decided, commits. `decide` may be called again after a deadlock.
        Returns the decision that was committed; its outcomes stand in the drafts' order.

        Without `wait`, a conversation that another worker holds right now is left out, with
        the outcome `Contended`: it holds up no other.
        """
        ...

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """Row and the user's member row, as of the last commit, of those conversations
        that exist and of which the user is or was a member.

        Thousands of ids are one call and must cost a few milliseconds: a sync asks so.
        """
        ...

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """All members, present and gone."""
        ...

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of after+1..up_to_inclusive that is here: contiguous, up to its end.

        What was trimmed is missing at the front; never is anything missing behind it.
        """
        ...

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """The user's conversation list (those left too) with version > `changed_after`."""
        ...

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """Moves read markers and read offsets forward; a lower value changes nothing (I9).

        A marker that moved raises the version of the user's conversation. Raises `ShardMoved`
        if some were refused, since another writer has their shard (I11); the rest is stored.
        """
        ...

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """The read offsets that are durable for one endpoint."""
        ...

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """Drops entries 1..seq of each conversation; never beyond what is archived (I10)."""
        ...
