"""Which of a user's conversations have something new for an endpoint (DESIGN section 4).

`StoredComparison` asks the hot store for all of them: right for one that is in the same process.
`CachedComparison` compares with the cached heads, in one round trip a node, and asks the hot
store for what is new and for the heads that the cached tier lacks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final, NamedTuple, Protocol

from trunkline.core.appending import ConversationWrite
from trunkline.core.views import last_visible
from trunkline.errors import TierUnavailable
from trunkline.model import (
    NO_SEQ,
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
from trunkline.ports.heads import Heads
from trunkline.ports.hot import HotStore
from trunkline.services.leases import Leases
from trunkline.services.metrics import Metrics

Row = tuple[Conversation, Member]

_ROWS_AT_ONCE: Final = 500


class Listing:
    """A user's conversation list as of a version of it.

    Attributes:
        version: the highest of the lines.
        lines: by key, those of conversations that the user left, too.
    """

    def __init__(self) -> None:
        self.version = 0
        self.lines: dict[ConversationKey, UserConversation] = {}
        self._lanes: Mapping[int, Sequence[UserConversation]] | None = None
        self._ends: dict[ConversationKey, Seq] = {}

    def take(self, lines: Sequence[UserConversation]) -> None:
        """Adds lines, or newer ones in the place of what is there."""
        for line in lines:
            known = self.lines.get(line.key)
            if known is None or known.version < line.version:
                self.lines[line.key] = line
                self._ends.pop(line.key, None)
                self._lanes = None
                self.version = max(self.version, line.version)

    def ended(self, line: UserConversation, last: Seq) -> None:
        """As of this line the user sees up to `last`, and no more: gone, or it is shredded."""
        if self.lines.get(line.key) is line:
            self._ends[line.key] = last
            self._lanes = None

    @property
    def ends(self) -> Mapping[ConversationKey, Seq]:
        """Up to where the user sees the conversations of which that was found out."""
        return self._ends

    def by_lane(
        self, lane_of: Callable[[ConversationId], int]
    ) -> Mapping[int, Sequence[UserConversation]]:
        """The lines whose heads count, by the database that holds the conversation."""
        if self._lanes is None:
            lines = [line for line in self.lines.values() if line.key not in self._ends]
            self._lanes = lanes_of(lines, lane_of)
        return self._lanes


def lanes_of(
    lines: Iterable[UserConversation], lane_of: Callable[[ConversationId], int]
) -> Mapping[int, Sequence[UserConversation]]:
    """Lines by the database that holds the conversation."""
    lanes: dict[int, list[UserConversation]] = {}
    for line in lines:
        lanes.setdefault(lane_of(line.conversation), []).append(line)
    return lanes


class Asked(NamedTuple):
    """What an endpoint holds, and which page of the answer it wants.

    Attributes:
        offsets: its read offsets.
        cursor: the version up to which it knows the list.
        after_key: the page begins behind this key.
        limit: most rows of the page.
    """

    offsets: Mapping[ConversationId, Seq]
    cursor: int
    after_key: int
    limit: int


class Compared(NamedTuple):
    """A page of what has something new for an endpoint.

    Attributes:
        rows: in the order of their keys.
        more: whether more follow.
        version: of the list that was compared.
    """

    rows: Sequence[Row]
    more: bool
    version: int


class Comparison(Protocol):
    """Compares a user's list with what an endpoint holds."""

    async def listing(self, user: UserId) -> Listing:
        """The list as of now."""
        ...

    async def changed(self, user: UserId, asked: Asked) -> Compared:
        """The first rows that have something new.

        New is what changed in the list since the cursor, and a last visible entry beyond the
        endpoint's read offset.
        """
        ...


class StoredComparison:
    """A `Comparison` with the rows of the hot store."""

    def __init__(self, hot: HotStore) -> None:
        self._hot = hot

    async def listing(self, user: UserId) -> Listing:
        """The list as of now."""
        listing = Listing()
        listing.take(await self._hot.conversations_of(user))
        return listing

    async def changed(self, user: UserId, asked: Asked) -> Compared:
        """See `Comparison`."""
        listing = await self.listing(user)
        rows = await self._hot.views(user, [line.conversation for line in listing.lines.values()])
        lines = sorted(
            (
                line
                for line in listing.lines.values()
                if line.key > asked.after_key and _is_new(line, rows, asked)
            ),
            key=lambda line: line.key,
        )
        page = [rows[line.conversation] for line in lines[: asked.limit]]
        return Compared(page, len(lines) > asked.limit, listing.version)


class CachedComparison:
    """A `Comparison` with cached heads; keeps the lists of the users who synced last."""

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
        most_lines: int,
    ) -> None:
        """`most_lines`: of all lists together; those of users who synced longest ago go first."""
        self._hot = hot
        self._heads = heads
        self._cached = cached
        self._cached_heads = cached_heads
        self._leases = leases
        self._from_cached = metrics.cached_heads.labels("cached")
        self._from_hot = metrics.cached_heads.labels("hot")
        self._lane_of = lane_of
        self._most_lines = most_lines
        self._listings: OrderedDict[UserId, Listing] = OrderedDict()
        self._line_count = 0

    async def listing(self, user: UserId) -> Listing:
        """The list as of now: what is known of it, and what changed since."""
        listing = self._listings.get(user) or Listing()
        lines = await self._hot.conversations_of(user, changed_after=listing.version)
        # Meanwhile it may have been dropped, or read by another sync.
        kept = self._listings.get(user)
        self._line_count -= len(kept.lines) if kept else 0
        listing.take(lines)
        self._listings[user] = listing
        self._listings.move_to_end(user)
        self._line_count += len(listing.lines)
        self._bound()
        return listing

    def _bound(self) -> None:
        while self._line_count > self._most_lines and len(self._listings) > 1:
            _, dropped = self._listings.popitem(last=False)
            self._line_count -= len(dropped.lines)

    async def changed(self, user: UserId, asked: Asked) -> Compared:
        """See `Comparison`."""
        limit = asked.limit
        listing, candidates = await self._candidates(user, asked)
        version = listing.version
        found: list[Row] = []
        for start in range(0, len(candidates), limit + 1):
            lines = candidates[start : start + limit + 1]
            rows = await self._hot.views(user, [line.conversation for line in lines])
            for line in lines:
                row = rows.get(line.conversation)
                if row is not None and (row[1].left_at or row[0].shredded):
                    listing.ended(line, NO_SEQ if row[0].shredded else last_visible(*row))
                if _is_new(line, rows, asked):
                    found.append(rows[line.conversation])
            if len(found) > limit:
                break
        return Compared(found[:limit], len(found) > limit, version)

    async def _candidates(
        self, user: UserId, asked: Asked
    ) -> tuple[Listing, list[UserConversation]]:
        """The list, and its lines that may have something new, in key order: all that have."""
        held, cursor = asked.offsets.get, asked.cursor
        known = self._listings.get(user) or Listing()
        before = known.version
        # The lines that are known need not wait for what changed in the list.
        listing, ahead = await asyncio.gather(
            self.listing(user), self._ahead(known.by_lane(self._lane_of), held)
        )
        later = [line for line in listing.lines.values() if line.version > before]
        if later:
            ahead += await self._ahead(lanes_of(later, self._lane_of), held)
        candidates = {line.key: line for line in ahead}
        for key, last in listing.ends.items():
            line = listing.lines[key]
            if last > held(line.conversation, NO_SEQ):
                candidates[key] = line
        if listing.version > cursor:
            candidates |= {k: line for k, line in listing.lines.items() if line.version > cursor}
        return listing, [candidates[key] for key in sorted(candidates) if key > asked.after_key]

    async def _ahead(
        self,
        lanes: Mapping[int, Sequence[UserConversation]],
        held: Callable[[ConversationId, Seq], Seq],
    ) -> list[UserConversation]:
        """The lines whose head is beyond what is held."""
        compared = await asyncio.gather(
            *(self._compare(lane, lines, held) for lane, lines in lanes.items())
        )
        return list(chain.from_iterable(compared))

    async def _compare(
        self,
        lane: int,
        lines: Sequence[UserConversation],
        held: Callable[[ConversationId, Seq], Seq],
    ) -> list[UserConversation]:
        """The lines of one database whose head is beyond what is held."""
        heads = await self._cached_of(lane, lines)
        ahead: list[UserConversation] = []
        lacking: list[UserConversation] = []
        for line, head in zip(lines, heads, strict=True):
            if head is None:
                lacking.append(line)
            elif head > held(line.conversation, NO_SEQ):
                ahead.append(line)
        self._from_cached.inc(len(lines) - len(lacking))
        if lacking:
            self._from_hot.inc(len(lacking))
            found = await self._load(lane, [line.key for line in lacking])
            ahead += [
                line for line in lacking
                if found.get(line.key, NO_SEQ) > held(line.conversation, NO_SEQ)
            ]  # fmt: skip
        return ahead

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
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            rows = await self._heads.rows(keys[start : start + _ROWS_AT_ONCE])
            found |= {row.key: row.head for row in rows}
            if self._leases.believes(lease):
                writes = [ConversationWrite.of_head(row) for row in rows]
                with suppress(TierUnavailable):  # the next sync finds them in the hot store again
                    await self._cached.append(writes, lease.generation.stamp)
        return found


def _is_new(line: UserConversation, rows: Mapping[ConversationId, Row], asked: Asked) -> bool:
    row = rows.get(line.conversation)
    # What was shredded is told once, by its version: nobody will ever hold the rest.
    return row is not None and (
        line.version > asked.cursor
        or (
            not row[0].shredded
            and last_visible(*row) > asked.offsets.get(line.conversation, NO_SEQ)
        )
    )
