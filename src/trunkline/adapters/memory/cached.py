"""Cached tier in the server's own memory: newest entries, read offsets, and what to evict.

The production tier of an embedded server, and on its hot path: all work here is
constant per entry and per confirmed offset, amortised.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, Final

import msgspec

from trunkline.core.appending import ConversationWrite
from trunkline.model import (
    ConversationKey,
    EndpointId,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
    WorkerId,
)
from trunkline.ports.clock import Clock
from trunkline.ports.readings import Reading

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class CachedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the cached tier."""

    conversation_entries: Annotated[
        _Positive,
        msgspec.Meta(
            description="Most entries of one conversation; cut back to it once an eighth over."
        ),
    ] = 4_096
    entries: Annotated[
        _Positive,
        msgspec.Meta(
            description="Most entries of all together, 1 KB each at 300 B; longest idle go first."
        ),
    ] = 200_000
    memory_bytes: Annotated[
        _Positive,
        msgspec.Meta(
            description="Most bytes that entries, heads and members' offsets take together, about."
        ),
    ] = 256 << 20
    idle_seconds: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="A conversation without a write, an endpoint without a word: gone.",
        ),
    ] = 900.0
    offsets: Annotated[
        _Positive,
        msgspec.Meta(
            description="Most read offsets together, 100 B each; endpoints longest idle go first."
        ),
    ] = 4_000_000


DEFAULTS: Final = CachedSettings()
_NOBODY: Final[Mapping[ConversationKey, Collection[WorkerId]]] = {}
_USES: Final = 16
"""Into how many steps the idle time is divided: a use is noted once a step."""


_ENTRY_BYTES: Final = 700
"""About what an entry takes beside its sealed body."""
_CONVERSATION_BYTES: Final = 700
_MEMBER_BYTES: Final = 150


class EvictionCause(StrEnum):
    """Why an entry left the tier."""

    READ = "read"
    """Every present member holds it."""
    LENGTH = "length"
    """Its conversation grew past its bound."""
    SPACE = "space"
    """All conversations together grew past their bound."""
    IDLE = "idle"
    """Nothing was written for too long."""
    GAP = "gap"
    """A later entry came without those between."""


class _Conversation:
    """Entries base+1..head without a hole, and how far each member holds them.

    `at` counts members by offset, those below `base` under `base`: so the lowest offset is
    found by climbing from `base`, each step past an entry that goes with it. `own_bytes` is what
    it takes beside its entries, as of its last use.
    """

    __slots__ = ("at", "base", "entries", "head", "offsets", "own_bytes", "used_at")

    def __init__(self, head: int) -> None:
        self.head = head
        self.base = head
        self.entries: list[StoredEntry] = []
        self.offsets: dict[UserId, int] = {}
        self.at: dict[int, int] = {}
        self.own_bytes = 0
        self.used_at = -math.inf

    def weigh(self) -> int:
        """Looks again at what it takes beside its entries; returns by how much more it is."""
        before = self.own_bytes
        self.own_bytes = _CONVERSATION_BYTES + _MEMBER_BYTES * len(self.offsets)
        return self.own_bytes - before

    def move(self, user: UserId, seq: int) -> None:
        """Raises a member's offset, the highest of its endpoints'."""
        offsets, at, base = self.offsets, self.at, self.base
        old = offsets.get(user)
        place = base
        if seq > base:  # half the time of max() on the hot path
            place = seq
        if old is not None:
            if old >= seq:
                return
            self._take_out(old)
        offsets[user] = seq
        at[place] = at.get(place, 0) + 1

    def remove(self, user: UserId) -> None:
        """Forgets a member that left."""
        old = self.offsets.pop(user, None)
        if old is not None:
            self._take_out(old)

    def evict_passed(self) -> Sequence[StoredEntry]:
        """Drops what all members with an offset hold; returns it."""
        lowest, head, at = self.base, self.head, self.at
        while lowest < head and lowest not in at:
            lowest += 1
        return self._drop(lowest) if lowest > self.base else ()

    def cut(self, up_to: int) -> Sequence[StoredEntry]:
        """Drops entries up to a position, whoever lacks them; returns them."""
        below = sum([self.at.pop(seq) for seq in list(self.at) if seq < up_to])
        if below:
            self.at[up_to] = self.at.get(up_to, 0) + below
        return self._drop(up_to)

    def _drop(self, up_to: int) -> Sequence[StoredEntry]:
        if up_to == self.head:
            dropped, self.entries = self.entries, []
        else:
            dropped = self.entries[: up_to - self.base]
            del self.entries[: up_to - self.base]
        self.base = up_to
        return dropped

    def _take_out(self, seq: int) -> None:
        at, base = self.at, self.base
        place = base
        if seq > base:
            place = seq
        left = at[place] - 1
        if left:
            at[place] = left
        else:
            del at[place]


class _Endpoint:
    """An endpoint's read offsets; not `whole` until those of the hot tier were filled in."""

    __slots__ = ("offsets", "used_at", "whole")

    def __init__(self) -> None:
        self.offsets: dict[ConversationKey, Seq] = {}
        self.used_at = -math.inf
        self.whole = False


class MemoryCachedTier:
    """A `ports.cached.CachedTier` of one worker alone: nobody else watches.

    Where several workers share it, `adapters.memory.bus` says who of them watches what.

    Attributes:
        evicted: entries evicted so far, by cause.
    """

    def __init__(self, clock: Clock, settings: CachedSettings = DEFAULTS) -> None:
        self._clock = clock
        self._settings = settings
        # Both in the order of their last use, so that what is idle longest stands first.
        self._conversations: OrderedDict[ConversationKey, _Conversation] = OrderedDict()
        self._endpoints: OrderedDict[tuple[UserId, EndpointId], _Endpoint] = OrderedDict()
        self._entry_count = 0
        self._sealed_bytes = self._other_bytes = 0
        self._offset_count = 0
        length = settings.conversation_entries
        self._length_cut = length + length // 8
        self._use_seconds = settings.idle_seconds / _USES
        self.evicted: dict[EvictionCause, int] = dict.fromkeys(EvictionCause, 0)

    @property
    def entry_count(self) -> int:
        """Entries that are cached now."""
        return self._entry_count

    @property
    def held_bytes(self) -> int:
        """What entries, heads and members' offsets take, about."""
        return self._other_bytes + self._sealed_bytes + _ENTRY_BYTES * self._entry_count

    @property
    def conversation_count(self) -> int:
        """Conversations whose head is cached now."""
        return len(self._conversations)

    @property
    def offset_count(self) -> int:
        """Read offsets of endpoints that are cached now."""
        return self._offset_count

    def readings(self) -> list[Reading]:
        """What was evicted, by cause."""
        return [
            Reading(
                "trunkline_cached_evicted_entries", cause, partial(self.evicted.__getitem__, cause)
            )
            for cause in EvictionCause
        ]

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """Takes over what a batch committed, see the port."""
        now = self._clock.monotonic()
        for write in writes:
            key = write.conversation.key
            conversation = self._conversations.get(key)
            if conversation is None:
                head = write.entries[0].seq - 1 if write.entries else write.conversation.head
                conversation = self._conversations[key] = _Conversation(head)
            if now - conversation.used_at >= self._use_seconds:
                conversation.used_at = now
                self._conversations.move_to_end(key)
                self._other_bytes += conversation.weigh()
            if write.conversation.head > conversation.head:
                self._take_over(conversation, write)
        most_entries, most_bytes = self._settings.entries, self._settings.memory_bytes
        while self._entry_count > most_entries or self.held_bytes > most_bytes:
            self._drop_oldest_conversation(EvictionCause.SPACE)
        return _NOBODY

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of the range that is cached: contiguous, up to its end; may be empty."""
        conversation = self._conversations.get(key)
        if conversation is None or not conversation.base < up_to_inclusive <= conversation.head:
            return ()
        base = conversation.base
        return conversation.entries[max(after - base, 0) : up_to_inclusive - base]

    async def confirm(
        self, moves: Sequence[OffsetMove], members: Mapping[ConversationKey, int]
    ) -> None:
        """Raises read offsets and evicts what all present members hold.

        A conversation that `members` does not name keeps its entries for now.
        """
        now = self._clock.monotonic()
        conversation_of = self._conversations.get
        last_user: UserId | None = None
        last_endpoint: EndpointId | None = None
        offsets: dict[ConversationKey, Seq] = {}
        for move in moves:
            key, user, seq = move.key, move.user, move.seq
            # What one endpoint confirms comes together: most moves are the last one's.
            if user is not last_user or move.endpoint is not last_endpoint:
                last_user, last_endpoint = user, move.endpoint
                offsets = self._endpoint(user, last_endpoint, now).offsets
            old = offsets.get(key)
            if old is None:
                self._offset_count += 1
                offsets[key] = seq
            elif old < seq:
                offsets[key] = seq
            conversation = conversation_of(key)
            if conversation is None:
                continue
            conversation.move(user, seq)
            present = members.get(key)
            if present is not None and len(conversation.offsets) >= present:
                dropped = conversation.evict_passed()
                if dropped:
                    self._count(EvictionCause.READ, dropped)
        self._bound_offsets()

    async def offsets(
        self, user: UserId, endpoint: EndpointId
    ) -> Mapping[ConversationKey, Seq] | None:
        """The endpoint's read offsets, or None if they are not cached."""
        found = self._endpoints.get((user, endpoint))
        if found is None or not found.whole:
            return None
        return dict(self._endpoint(user, endpoint, self._clock.monotonic()).offsets)

    async def load_offsets(
        self, user: UserId, endpoint: EndpointId, offsets: Mapping[ConversationKey, Seq]
    ) -> None:
        """Fills in an endpoint's offsets; what it confirmed meanwhile stays where higher."""
        found = self._endpoint(user, endpoint, self._clock.monotonic())
        for key, seq in offsets.items():
            old = found.offsets.get(key)
            if old is None:
                self._offset_count += 1
            if old is None or old < seq:
                found.offsets[key] = seq
        found.whole = True
        self._bound_offsets()

    async def evict_idle(self) -> int:
        """Drops what was idle past its time; returns the number of entries dropped."""
        before = self._clock.monotonic() - self._settings.idle_seconds
        dropped = 0
        while self._conversations:
            if next(iter(self._conversations.values())).used_at > before:
                break
            dropped += self._drop_oldest_conversation(EvictionCause.IDLE)
        while self._endpoints:
            if next(iter(self._endpoints.values())).used_at > before:
                break
            self._drop_oldest_endpoint()
        return dropped

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """One worker alone pushes what it wrote itself."""

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """Nobody was told anything."""

    def _take_over(self, conversation: _Conversation, write: ConversationWrite) -> None:
        head = write.conversation.head
        entries = write.entries
        next_seq = conversation.head + 1
        if entries and entries[0].seq <= next_seq:
            new = entries[next_seq - entries[0].seq :]
            conversation.entries += new
            self._entry_count += len(new)
            size = 0
            for entry in new:
                size += len(entry.sealed)
            self._sealed_bytes += size
            conversation.head = head
        else:
            conversation.head = head
            self._count(EvictionCause.GAP, conversation.cut(head))
        for user, member in write.members.items():
            if member.left_at:
                conversation.remove(user)
        if len(conversation.entries) > self._length_cut:
            up_to = head - self._settings.conversation_entries
            self._count(EvictionCause.LENGTH, conversation.cut(up_to))

    def _endpoint(self, user: UserId, endpoint: EndpointId, now: float) -> _Endpoint:
        identity = (user, endpoint)
        found = self._endpoints.get(identity)
        if found is None:
            found = self._endpoints[identity] = _Endpoint()
        if now - found.used_at >= self._use_seconds:
            found.used_at = now
            self._endpoints.move_to_end(identity)
        return found

    def _count(self, cause: EvictionCause, dropped: Sequence[StoredEntry]) -> None:
        self.evicted[cause] += len(dropped)
        self._entry_count -= len(dropped)
        size = 0
        for entry in dropped:
            size += len(entry.sealed)
        self._sealed_bytes -= size

    def _drop_oldest_conversation(self, cause: EvictionCause) -> int:
        _, conversation = self._conversations.popitem(last=False)
        self._count(cause, conversation.entries)
        self._other_bytes -= conversation.own_bytes
        return len(conversation.entries)

    def _bound_offsets(self) -> None:
        while self._offset_count > self._settings.offsets:
            self._drop_oldest_endpoint()

    def _drop_oldest_endpoint(self) -> None:
        _, endpoint = self._endpoints.popitem(last=False)
        self._offset_count -= len(endpoint.offsets)
