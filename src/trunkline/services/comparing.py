"""Brings a user's listing up to date with the heads that are committed (DESIGN section 4).

`StoredComparison` asks the hot store: right for one that is in the same process, and can say
which heads changed. `CachedComparison` takes the cached heads, in one round trip a node, and asks
the hot store for those that the cached tier lacks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Protocol

from trunkline.core.appending import ConversationWrite
from trunkline.errors import TierUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Member,
    Seq,
    UserConversation,
    UserId,
)
from trunkline.ports.cached import CachedTier
from trunkline.ports.cached_heads import CachedHeads
from trunkline.ports.head_changes import HeadChanges
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.services.leases import Leases
from trunkline.services.listings import Listing, Listings, lanes_of
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import paced, portions

Row = tuple[Conversation, Member]

_ROWS_AT_ONCE: Final = 500


class Comparison(Protocol):
    """Holds what users' endpoints are compared with."""

    def locked(self, user: UserId) -> AbstractAsyncContextManager[Listing]:
        """The user's listing as it is kept, for nobody else."""
        ...

    def keeps(self, user: UserId) -> bool:
        """Whether the user's listing needs little to be brought up to date."""
        ...

    async def refresh(self, user: UserId, listing: Listing) -> None:
        """Brings a listing that is locked up to date: what was acknowledged before is in it."""
        ...


class _Kept:
    """The listings that are kept, handed out one at a time."""

    def __init__(self, hot: HotStore, *, most_bytes: int) -> None:
        self._hot = hot
        self._listings = Listings(most_bytes=most_bytes)

    @asynccontextmanager
    async def locked(self, user: UserId) -> AsyncIterator[Listing]:
        """See `Comparison`."""
        listing = self._listings.of(user)
        async with listing.lock:
            try:
                yield listing
            finally:
                self._listings.weigh(user)


class StoredComparison(_Kept):
    """A `Comparison` with the rows of the hot store."""

    def __init__(self, hot: HotStore, changes: HeadChanges | None, *, most_bytes: int) -> None:
        """`changes`: without them all heads are read anew each time."""
        super().__init__(hot, most_bytes=most_bytes)
        self._changes = changes

    def keeps(self, user: UserId) -> bool:
        """See `Comparison`."""
        listing = self._listings.get(user)
        return self._changes is not None and listing is not None and listing.position >= 0

    async def refresh(self, user: UserId, listing: Listing) -> None:
        """See `Comparison`."""
        changes = self._changes
        position = changes.position if changes else -1
        changed = changes.since(listing.position) if changes and listing.position >= 0 else None
        listing.position = -1  # if this ends early, all is read anew the next time
        lines = await self._hot.conversations_of(user, changed_after=listing.version)
        if changed is None:
            unseen = list((listing.lines | {line.conversation: line for line in lines}).values())
        else:
            unseen = list(lines)
            for conversation, head in changed:
                line = listing.lines.get(conversation)
                if line is not None:
                    listing.reached(line, head)
        rows: dict[ConversationId, Row] = {}
        async for some in paced(unseen):
            rows |= await self._hot.views(user, [line.conversation for line in some])
        listing.take(lines)
        async for some in paced(unseen):
            for line in some:
                row = rows.get(line.conversation)
                if row is not None:
                    listing.saw(line, *row)
        listing.position = position


class CachedComparison(_Kept):
    """A `Comparison` with cached heads."""

    def __init__(
        self,
        hot: HotStore,
        heads: Heads,
        cached: CachedTier,
        cached_heads: CachedHeads,
        leases: Leases,
        metrics: Metrics,
        *,
        lane_of: Callable[[ConversationId], int],
        most_bytes: int,
    ) -> None:
        super().__init__(hot, most_bytes=most_bytes)
        self._heads = heads
        self._cached = cached
        self._cached_heads = cached_heads
        self._leases = leases
        self._from_cached = metrics.cached_heads.labels("cached")
        self._from_hot = metrics.cached_heads.labels("hot")
        self._lane_of = lane_of

    def keeps(self, user: UserId) -> bool:
        """See `Comparison`: all heads are asked for each time."""
        return False

    async def refresh(self, user: UserId, listing: Listing) -> None:
        """See `Comparison`."""
        # The lines that are known need not wait for what changed in the list.
        lines, _ = await asyncio.gather(
            self._hot.conversations_of(user, changed_after=listing.version),
            self._compare_all(listing, listing.by_lane(self._lane_of)),
        )
        await self._compare_all(listing, lanes_of(lines, self._lane_of))
        listing.take(lines)

    async def _compare_all(
        self, listing: Listing, lanes: Mapping[int, Sequence[UserConversation]]
    ) -> None:
        await asyncio.gather(
            *(self._compare(listing, lane, lines) for lane, lines in lanes.items())
        )

    async def _compare(
        self, listing: Listing, lane: int, lines: Sequence[UserConversation]
    ) -> None:
        """Takes over the heads of one database's lines."""
        heads = await self._cached_of(lane, lines)
        end_of = listing.ends.of
        lacking: list[UserConversation] = []
        async for some in paced(list(zip(lines, heads, strict=True)), 4 * _ROWS_AT_ONCE):
            for line, head in some:
                if head is None:
                    lacking.append(line)
                elif head > end_of(line.conversation):
                    listing.reached(line, head)
        self._from_cached.inc(len(lines) - len(lacking))
        if lacking:
            self._from_hot.inc(len(lacking))
            found = await self._load(lane, [line.key for line in lacking])
            for line in lacking:
                head = found.get(line.key)
                if head is not None:
                    listing.reached(line, head)

    async def _cached_of(
        self, lane: int, lines: Sequence[UserConversation]
    ) -> Sequence[Seq | None]:
        lease = await self._leases.of(lane)
        if self._leases.believes(lease):
            keys = [line.key for line in lines]
            heads = await self._cached_heads.heads(keys, lease.generation.stamp)
            if self._leases.believes(lease) and await self._leases.still(lease):
                return heads
        return [None] * len(lines)

    async def _load(
        self, lane: int, keys: Sequence[ConversationKey]
    ) -> Mapping[ConversationKey, Seq]:
        """Heads from the hot store; they are put into the cached tier, too.

        The lease comes before the read: what is committed after it, and not taken over by the
        cached tier, ends the stamp.
        """
        lease = await self._leases.of(lane)
        found: dict[ConversationKey, Seq] = {}
        for some in portions(keys):
            rows = await self._heads.rows(some)
            found |= {row.key: row.head for row in rows}
            if self._leases.believes(lease):
                writes = [ConversationWrite.of_head(row) for row in rows]
                with suppress(TierUnavailable):  # the next sync finds them in the hot store again
                    await self._cached.append(writes, lease.generation.stamp)
        return found
