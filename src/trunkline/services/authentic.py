"""A hot store whose member rows are checked: who wrote one without a key is no member (I13)."""

from collections.abc import Collection, Mapping, Sequence

import structlog

from trunkline.core.appending import Decision
from trunkline.core.member_macs import MemberMacs
from trunkline.errors import SealBroken
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
from trunkline.ports.hot import Decide, HotStore

_log = structlog.get_logger("trunkline.authentic")


class AuthenticHotStore:
    """A `ports.hot.HotStore` over another. What an append decides on, the decision checks."""

    def __init__(self, hot: HotStore, macs: MemberMacs) -> None:
        self._hot = hot
        self._macs = macs

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """As the store."""
        return await self._hot.append(batch, decide, wait=wait)

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """As the store; raises `SealBroken` if one is asked for and its row is not as it was
        written. Of several such rows are left out, and logged: one that somebody put there
        keeps nobody from all the others.

        Of a shredded conversation nobody learns anything, whatever his row says.
        """
        rows = await self._hot.views(user, ids)
        hold = self._macs.hold
        forged = [
            conversation.id
            for conversation, member in rows.values()
            if not conversation.shredded and not hold(conversation.key, member)
        ]
        if not forged:
            return rows
        if len(ids) == 1:
            raise SealBroken(f"The row of the member {user!r} of {forged[0]!r} has not its MAC.")
        _log.error("member_not_authentic", user=user, conversations=forged)
        return {id_: row for id_, row in rows.items() if id_ not in forged}

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """As the store, without rows that are not as they were written: those are logged."""
        rows = await self._hot.members(key)
        held = {user: member for user, member in rows.items() if self._macs.hold(key, member)}
        if len(held) < len(rows):
            _log.error(
                "members_not_authentic", key=f"{key:#018x}", users=sorted(rows.keys() - held.keys())
            )
        return held

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """As the store."""
        return await self._hot.read(key, after, up_to_inclusive)

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """As the store."""
        return await self._hot.conversations_of(user, changed_after=changed_after)

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """As the store."""
        await self._hot.record(markers, offsets)

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """As the store."""
        return await self._hot.offsets(user, endpoint)

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """As the store."""
        await self._hot.trim(trims)
