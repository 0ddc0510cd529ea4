"""Reads a range level by level and joins the parts into one whole answer (DESIGN section 5).

Reads of the same range that meet are one read, and its entries are encoded once: what is
committed never changes, so what was read may be kept for a while and shared.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from trunkline.core import segments
from trunkline.core.envelope import associated_data_of, opened
from trunkline.core.tiering import is_whole, missing_before
from trunkline.errors import ConversationShredded, DataDamaged, TrunklineError
from trunkline.model import (
    NO_SEQ,
    Conversation,
    ConversationKey,
    Entry,
    Kind,
    Segment,
    Seq,
    StoredEntry,
)
from trunkline.ports.cached import CachedTier
from trunkline.ports.clock import Clock
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.services.kept import Kept
from trunkline.services.metrics import Metrics
from trunkline.services.opened_segments import RUN_ENTRIES, OpenedSegments
from trunkline.services.settings import ServiceSettings
from trunkline.wire.encoding import Encoding

_TRIES: Final = 4

Answer = TypeVar("Answer")
RunKey = tuple[ConversationKey, bytes, Seq, Seq, str]


class EncodedRun(msgspec.Struct, frozen=True, gc=False):
    """Entries after+1..up_to, encoded as an array."""

    after: Seq
    up_to_inclusive: Seq
    data: msgspec.Raw
    size: int


class Reader:
    """The one read path of the three tiers."""

    def __init__(
        self,
        hot: HotStore,
        cached: CachedTier,
        cold: ColdStore,
        sealer: Sealer,
        clock: Clock,
        metrics: Metrics,
        settings: ServiceSettings,
    ) -> None:
        self._hot = hot
        self._cached = cached
        self._cold = cold
        self._sealer = sealer
        self._clock = clock
        self._metrics = metrics
        self._flights: dict[object, asyncio.Future[object]] = {}
        self._run_bytes = settings.page_bytes
        # An encoded run may be made of entries that were kept: together they keep to the bound.
        seconds = settings.read_cache_seconds / 2
        self._runs: Kept[RunKey, EncodedRun] = Kept(
            clock, most_bytes=settings.page_cache_bytes, most_seconds=seconds
        )
        self._opened = OpenedSegments(
            clock, most_bytes=settings.segment_cache_bytes, most_seconds=seconds
        )
        metrics.page_cache.set_function(lambda: self._runs.size_bytes)
        metrics.segment_cache.set_function(lambda: self._opened.size_bytes)

    async def entries(
        self, conversation: Conversation, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry]:
        """Exactly after+1..up_to_inclusive (I1, I8).

        The caller has checked the range against the conversation's head. Raises
        `TierUnavailable`, `StorageUnavailable` or `ConversationShredded`, never answers short.
        """
        if after >= up_to_inclusive:
            return []
        key = (conversation.key, after, up_to_inclusive)
        return await self._once(key, lambda: self._read(conversation, after, up_to_inclusive))

    async def encoded(
        self, conversation: Conversation, after: Seq, up_to_inclusive: Seq, encoding: Encoding
    ) -> EncodedRun:
        """The first run of a range, encoded.

        It ends at a multiple of 128 or at the range's end, or earlier where it would be
        longer than a page; it holds at least one entry. Raises as `entries`.
        """
        if conversation.shredded:
            raise ConversationShredded
        last = Seq(min(up_to_inclusive, (after // RUN_ENTRIES + 1) * RUN_ENTRIES))
        key = (conversation.key, conversation.wrapped_key, after, last, encoding.subprotocol)
        run = self._runs.get(key)
        if run is not None:
            self._metrics.reads_shared.inc()
            return run
        return await self._once(key, lambda: self._encode(conversation, encoding, key))

    def forget_old(self) -> None:
        """Forgets what was read too long ago, also where nobody asks for it any more."""
        self._runs.forget_old()
        self._opened.forget_old()

    async def countable_at(self, conversation: Conversation, seq: Seq) -> int:
        """The running count of messages up to and with `seq`."""
        if seq == NO_SEQ:
            return 0
        if seq == conversation.head:
            return conversation.countable
        for tier in (self._cached, self._hot):
            found = await tier.read(conversation.key, Seq(seq - 1), seq)
            if found:
                return found[-1].countable
        for segment in await self._cold.read(conversation.key, Seq(seq - 1), seq):
            part = self._open_segment(conversation, segment)
            return part.countable_before + sum(
                e.kind is Kind.MESSAGE for e in part.entries if e.seq <= seq
            )
        raise DataDamaged(f"I1: entry {seq} is in no tier.")

    async def _once(self, key: object, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """Joins the read of this key that is under way, or makes it."""
        while True:
            flight = self._flights.get(key)
            if flight is None:
                break
            self._metrics.reads_shared.inc()
            await asyncio.wait((flight,))
            if not flight.cancelled():
                return flight.result()  # type: ignore[return-value]
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await read()
        except BaseException as error:
            if isinstance(error, Exception):
                flight.set_exception(error)
                flight.exception()  # nobody else may be waiting: mark it as seen
            else:
                flight.cancel()
            raise
        else:
            flight.set_result(answer)
            return answer
        finally:
            del self._flights[key]

    async def _encode(
        self, conversation: Conversation, encoding: Encoding, key: RunKey
    ) -> EncodedRun:
        _, _, after, last, _ = key
        entries = await self.entries(conversation, after, last)
        data = encoding.encode(entries)
        while len(data) > self._run_bytes and len(entries) > 1:
            entries = entries[: len(entries) // 2]
            data = encoding.encode(entries)
        run = EncodedRun(after, Seq(after + len(entries)), msgspec.Raw(data), len(data))
        self._runs.put(key, run, run.size)
        return run

    async def _read(self, conversation: Conversation, after: Seq, up_to: Seq) -> list[Entry]:
        for _ in range(_TRIES):
            entries = await self._descend(conversation, after, up_to)
            if is_whole(entries, after, up_to):
                return entries
        raise DataDamaged(f"I8: the tiers do not hold all of {after + 1} to {up_to}.")

    async def _descend(self, conversation: Conversation, after: Seq, up_to: Seq) -> list[Entry]:
        """One pass through the tiers; a trim on the way leaves it short."""
        parts: list[list[Entry]] = []
        missing = up_to
        for name, tier in (("cached", self._cached), ("hot", self._hot)):
            if missing <= after:
                break
            stored = await self._timed(name, tier.read(conversation.key, after, missing))
            parts.append(self._open(conversation, stored))
            missing = missing_before(stored, missing)
            self._count(name, len(stored), whole=missing <= after)
        if missing > after:
            parts.append(await self._read_cold(conversation, after, missing))
        return [entry for part in reversed(parts) for entry in part]

    async def _read_cold(self, conversation: Conversation, after: Seq, up_to: Seq) -> list[Entry]:
        kept = self._opened.find(conversation, after, up_to)
        if kept is not None:
            self._metrics.segment_cache_entries.inc(len(kept))
            return kept
        found: dict[Seq, Entry] = {}
        for segment in await self._timed("cold", self._cold.read(conversation.key, after, up_to)):
            for entry in self._open_segment(conversation, segment).entries:
                found[entry.seq] = entry
        self._opened.keep(conversation, found)
        part = [found[Seq(seq)] for seq in range(after + 1, up_to + 1) if seq in found]
        self._count("cold", len(part), whole=is_whole(part, after, up_to))
        return part

    def _open(self, conversation: Conversation, stored: Sequence[StoredEntry]) -> list[Entry]:
        if not stored:
            return []
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        return [
            opened(entry, cipher.open(entry.sealed, associated_data_of(conversation.id, entry)))
            for entry in stored
        ]

    def _open_segment(self, conversation: Conversation, segment: Segment) -> segments.OpenedSegment:
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        return segments.open_segment(conversation, segment, cipher)

    async def _timed(self, tier: str, read: Awaitable[Answer]) -> Answer:
        """A tier's answer; how long it took and whether it failed are noted."""
        began = self._clock.monotonic()
        try:
            answer = await read
        except TrunklineError as error:
            self._metrics.tier_failures.labels(tier, error.code).inc()
            raise
        self._metrics.tier_seconds.labels(tier).observe(self._clock.monotonic() - began)
        return answer

    def _count(self, tier: str, entries: int, *, whole: bool) -> None:
        """`whole`: nothing was left for the tiers below."""
        self._metrics.tier_reads.labels(tier).inc()
        if whole:
            self._metrics.tier_hits.labels(tier).inc()
        if entries:
            self._metrics.tier_entries.labels(tier).inc(entries)
