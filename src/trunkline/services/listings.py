"""What a worker keeps of the users who synced last: lists, where their views end, read offsets.

All of a user stands in one `Listing`, changed under its lock. An endpoint's read offsets are kept
as what they differ by from where the views end: an endpoint that is up to date takes no room.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import chain, takewhile
from operator import attrgetter
from typing import Final

from trunkline.core.digest import move_vector
from trunkline.core.ranges import RANGES, Vector, move_sums
from trunkline.core.views import last_visible
from trunkline.model import (
    NO_DIGEST,
    NO_SEQ,
    Conversation,
    ConversationId,
    ConversationKey,
    Digest,
    EndpointId,
    Member,
    Seq,
    UserConversation,
    UserId,
)
from trunkline.services.pacing import paced

_BY_VERSION: Final = attrgetter("version")
_LINE_BYTES: Final = 600
_OFFSET_BYTES: Final = 120
_ENDPOINT_BYTES: Final = 600


class Offsets:
    """What one endpoint holds as far as it said so, as what differs from the ends of the views.

    Of an endpoint that holds little, what differs from nothing: neither takes much room.

    Attributes:
        differing: the seqs that are no view's end, or not 0.
    """

    __slots__ = ("_digest", "_ends", "_holds_all", "_stale", "differing")

    def __init__(self, ends: Vector) -> None:
        """At first the endpoint holds nothing."""
        self._ends = ends
        self._holds_all = False
        self._digest = NO_DIGEST
        self._stale = False
        self.differing: dict[ConversationId, Seq] = {}

    async def load(
        self,
        offsets: Mapping[ConversationKey, Seq],
        lines: Mapping[ConversationId, UserConversation],
    ) -> None:
        """Takes over the read offsets that a tier holds."""
        if offsets:
            self._holds_all = 2 * len(offsets) >= len(lines)
            async for some in paced(list(lines.values())):
                self.tell((line.conversation, offsets.get(line.key, NO_SEQ)) for line in some)

    def of(self, conversation: ConversationId) -> Seq:
        """What is held of a conversation, 0 if nothing is."""
        return self.differing.get(conversation, self._base(conversation))

    def _base(self, conversation: ConversationId) -> Seq:
        return self._ends.of(conversation) if self._holds_all else NO_SEQ

    def move(self, conversation: ConversationId, seq: Seq) -> None:
        """The endpoint holds so much of one conversation; costs two hashes."""
        digest = move_vector(self._digest, conversation, self.of(conversation), seq)
        self._set(conversation, seq)
        self._digest = digest

    def tell(self, held: Iterable[tuple[ConversationId, Seq]]) -> None:
        """The same of many."""
        for conversation, seq in held:
            self._set(conversation, seq)
        self._stale = True

    def _set(self, conversation: ConversationId, seq: Seq) -> None:
        if seq == self._base(conversation):
            self.differing.pop(conversation, None)
        else:
            self.differing[conversation] = seq

    def prove_all(self) -> None:
        """The endpoint holds everything."""
        self.differing, self._holds_all, self._stale = {}, True, True

    def prove(self, numbers: Sequence[int]) -> None:
        """The endpoint holds all of these ranges."""
        ends, differing = self._ends, self.differing
        self._stale = True
        if not self._holds_all and 2 * len(numbers) > RANGES:
            others = set(range(RANGES)).difference(numbers)
            lacking = chain.from_iterable(map(ends.conversations, others))
            self.differing = {c: differing.get(c, NO_SEQ) for c in lacking}
            self._holds_all = True
            return
        for conversation in chain.from_iterable(map(ends.conversations, numbers)):
            self._set(conversation, ends.of(conversation))

    def lacking(self, conversations: Set[ConversationId]) -> Set[ConversationId]:
        """Those of which it is not known that all is held."""
        return conversations & self.differing.keys() if self._holds_all else conversations

    def end_moves(self, conversation: ConversationId, end: Seq) -> None:
        """The view is about to end elsewhere; what is held stays."""
        if self._holds_all:
            seq = self.of(conversation)
            if seq == end:
                self.differing.pop(conversation, None)
            else:
                self.differing[conversation] = seq

    def behind(self, conversations: Set[ConversationId]) -> dict[ConversationId, Seq]:
        """What is held of those of the conversations whose views end beyond it."""
        held = ((c, self.of(c)) for c in self.lacking(conversations))
        return {c: seq for c, seq in held if seq < self._ends.of(c)}

    async def digest(self) -> Digest:
        """The vector digest over all."""
        if self._stale:
            digest = self._ends.digest if self._holds_all else NO_DIGEST
            async for some in paced(list(self.differing.items())):
                for conversation, seq in some:
                    digest = move_vector(digest, conversation, self._base(conversation), seq)
            self._digest, self._stale = digest, False
        return self._digest

    async def sums(self) -> list[int]:
        """Of the ranges, modulo 2^64; the ends must be divided."""
        sums = self._ends.sums() if self._holds_all else [0] * RANGES
        async for some in paced(list(self.differing.items())):
            for conversation, seq in some:
                move_sums(sums, conversation, self._base(conversation), seq)
        return sums


class Listing:
    """A user's conversation list as of a version of it, and where the user's views end.

    Attributes:
        lock: held by whoever reads or changes anything here over a wait.
        version: the highest of the lines.
        position: up to where a log of changed heads is taken over.
        lines: of all conversations, those that the user left, too; what changed last at the end.
        ends: the last visible seq of each conversation, as far as it is known.
        endpoints: the read offsets of the user's endpoints, those that synced last at the end.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.version = 0
        self.position = -1
        self.lines: dict[ConversationId, UserConversation] = {}
        self.ends = Vector()
        self.endpoints: OrderedDict[EndpointId, Offsets] = OrderedDict()
        self._lanes: Mapping[int, Sequence[UserConversation]] | None = None
        self._settled: dict[ConversationId, None] = {}

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        offsets = sum(len(endpoint.differing) for endpoint in self.endpoints.values())
        return (
            len(self.lines) * _LINE_BYTES
            + len(self.endpoints) * _ENDPOINT_BYTES
            + offsets * _OFFSET_BYTES
        )

    def take(self, lines: Iterable[UserConversation]) -> None:
        """Adds lines, or newer ones in the place of what is there.

        All that changed in one transaction have the same version.
        """
        before = self.version
        for line in sorted(lines, key=_BY_VERSION):
            if line.version > before:
                self.lines.pop(line.conversation, None)
                self.lines[line.conversation] = line
                self._settled.pop(line.conversation, None)
                self._lanes = None
                self.version = line.version

    def changed_after(self, version: int) -> list[UserConversation]:
        """The lines with a higher version."""
        return list(takewhile(lambda line: line.version > version, reversed(self.lines.values())))

    def reached(self, line: UserConversation, head: Seq) -> None:
        """The conversation has this head; one that is known to be higher stays."""
        if head > self.ends.of(line.conversation) and line.conversation not in self._settled:
            self._end(line.conversation, head)

    def saw(self, line: UserConversation, conversation: Conversation, member: Member) -> None:
        """The rows as of this line or later: where the view ends, for ever if the user is gone.

        What was shredded ends nowhere: nobody will ever hold the rest.
        """
        if not member.left_at and not conversation.shredded:
            self.reached(line, conversation.head)
        elif self.lines.get(line.conversation) is line and line.conversation not in self._settled:
            self._settled[line.conversation] = None
            self._lanes = None
            end = NO_SEQ if conversation.shredded else last_visible(conversation, member)
            self._end(line.conversation, end)

    def _end(self, conversation: ConversationId, end: Seq) -> None:
        for offsets in self.endpoints.values():
            offsets.end_moves(conversation, end)
        self.ends.move(conversation, end)

    def by_lane(
        self, lane_of: Callable[[ConversationId], int]
    ) -> Mapping[int, Sequence[UserConversation]]:
        """The lines whose heads count, by the database that holds the conversation."""
        if self._lanes is None:
            lines = [line for line in self.lines.values() if line.conversation not in self._settled]
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


class Listings:
    """The listings of the users who synced last, bounded in bytes."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[UserId, tuple[Listing, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, user: UserId) -> Listing | None:
        """What is kept of a user."""
        kept = self._kept.get(user)
        return kept[0] if kept else None

    def of(self, user: UserId) -> Listing:
        """The user's listing, empty if none is kept."""
        listing = self.get(user)
        if listing is None:
            listing = Listing()
            self._kept[user] = (listing, 0)
        self._kept.move_to_end(user)
        return listing

    def weigh(self, user: UserId) -> None:
        """Keeps the bound after the user's listing changed: those unused longest go first."""
        kept = self._kept.get(user)
        if kept is None:
            return
        listing, before = kept
        while len(listing.endpoints) > 1 and listing.size_bytes > self._most_bytes:
            listing.endpoints.popitem(last=False)
        self._kept[user] = (listing, listing.size_bytes)
        self.size_bytes += listing.size_bytes - before
        while self.size_bytes > self._most_bytes and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.size_bytes -= dropped
