"""A hot store whose member rows are checked: who wrote one without a key is no member (I13)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog

from trunkline.core.appending import Decision
from trunkline.core.member_macs import MemberMacs
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
from trunkline.services.metrics import Metrics

_TOLD_MOST: Final = 10_000

_log = structlog.get_logger("trunkline.authentic")


class AuthenticHotStore:
    """A `ports.hot.HotStore` over another. What an append decides on, the decision checks."""

    def __init__(self, hot: HotStore, macs: MemberMacs, metrics: Metrics) -> None:
        self._hot = hot
        self._macs = macs
        self._not_authentic = metrics.members_not_authentic
        self._told: set[tuple[ConversationKey, UserId]] = set()

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """As the store."""
        return await self._hot.append(batch, decide, wait=wait)

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """As the store, without rows that are not as they were written: those are told, and
        count as none, so that one which somebody put there keeps nobody from all the others.

        Of a shredded conversation nobody learns anything, whatever his row says.
        """
        rows = await self._hot.views(user, ids)
        hold = self._macs.hold
        forged = [
            conversation
            for conversation, member in rows.values()
            if not conversation.shredded and not hold(conversation.key, member)
        ]
        if not forged:
            return rows
        self._tell((conversation.key, user) for conversation in forged)
        left_out = {conversation.id for conversation in forged}
        return {id_: row for id_, row in rows.items() if id_ not in left_out}

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """As the store, without rows that are not as they were written."""
        rows = await self._hot.members(key)
        held = {user: member for user, member in rows.items() if self._macs.hold(key, member)}
        if len(held) < len(rows):
            self._tell((key, user) for user in rows.keys() - held.keys())
        return held

    def _tell(self, forged: Iterable[tuple[ConversationKey, UserId]]) -> None:
        """Counts each time; logs once, and again when many others came between."""
        for key, user in forged:
            self._not_authentic.inc()
            if (key, user) in self._told:
                continue
            if len(self._told) >= _TOLD_MOST:
                self._told.clear()
            self._told.add((key, user))
            _log.error("member_not_authentic", key=f"{key:#018x}", user=user)

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
