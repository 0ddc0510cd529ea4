"""Reads a range level by level and joins the parts into one whole answer (DESIGN section 5).

Reads of the same range that meet are one read, and its entries are encoded once: what is
committed never changes, so an encoded run may be kept and shared.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from trunkline.core import segments
from trunkline.core.envelope import associated_data_of, opened
from trunkline.core.tiering import is_whole, missing_before
from trunkline.errors import ConversationShredded, DataDamaged
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
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.services.metrics import Metrics
from trunkline.wire.encoding import Encoding

RUN_ENTRIES: Final = 128
"""Long ranges are read and encoded in runs that end at multiples of this."""
_TRIES: Final = 4

Answer = TypeVar("Answer")
RunKey = tuple[ConversationKey, Seq, Seq, str]


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
        metrics: Metrics,
        *,
        run_bytes: int,
        page_cache_bytes: int,
    ) -> None:
        self._hot = hot
        self._cached = cached
        self._cold = cold
        self._sealer = sealer
        self._metrics = metrics
        self._flights: dict[object, asyncio.Future[object]] = {}
        self._runs: OrderedDict[RunKey, EncodedRun] = OrderedDict()
        self._runs_bytes = 0
        self._used_since: set[RunKey] = set()
        self._run_bytes = run_bytes
        self._page_cache_bytes = page_cache_bytes

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
        longer than `run_bytes`; it holds at least one entry. Raises as `entries`.
        """
        if conversation.shredded:
            raise ConversationShredded
        last = Seq(min(up_to_inclusive, (after // RUN_ENTRIES + 1) * RUN_ENTRIES))
        key = (conversation.key, after, last, encoding.subprotocol)
        run = self._runs.get(key)
        if run is not None:
            self._runs.move_to_end(key)
            self._used_since.add(key)
            self._metrics.reads_shared.inc()
            return run
        return await self._once(key, lambda: self._encode(conversation, encoding, key))

    def forget_idle(self) -> None:
        """Forgets the encoded runs that nobody asked for since the last call."""
        for key in self._runs.keys() - self._used_since:
            self._runs_bytes -= self._runs.pop(key).size
        self._used_since.clear()

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
        _, after, last, _ = key
        entries = await self.entries(conversation, after, last)
        data = encoding.encode(entries)
        while len(data) > self._run_bytes and len(entries) > 1:
            entries = entries[: len(entries) // 2]
            data = encoding.encode(entries)
        run = EncodedRun(after, Seq(after + len(entries)), msgspec.Raw(data), len(data))
        self._runs[key] = run
        self._used_since.add(key)
        self._runs_bytes += run.size
        while self._runs_bytes > self._page_cache_bytes:
            evicted, dropped = self._runs.popitem(last=False)
            self._used_since.discard(evicted)
            self._runs_bytes -= dropped.size
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
            stored = await tier.read(conversation.key, after, missing)
            self._count(name, len(stored))
            parts.append(self._open(conversation, stored))
            missing = missing_before(stored, missing)
        if missing > after:
            parts.append(await self._read_cold(conversation, after, missing))
        return [entry for part in reversed(parts) for entry in part]

    async def _read_cold(self, conversation: Conversation, after: Seq, up_to: Seq) -> list[Entry]:
        found: dict[Seq, Entry] = {}
        for segment in await self._cold.read(conversation.key, after, up_to):
            for entry in self._open_segment(conversation, segment).entries:
                if after < entry.seq <= up_to:
                    found[entry.seq] = entry
        self._count("cold", len(found))
        return [found[seq] for seq in sorted(found)]

    def _open(self, conversation: Conversation, stored: Sequence[StoredEntry]) -> list[Entry]:
        if not stored:
            return []
        cipher = self._sealer.cipher(conversation.wrapped_key)
        return [
            opened(entry, cipher.open(entry.sealed, associated_data_of(conversation.id, entry)))
            for entry in stored
        ]

    def _open_segment(self, conversation: Conversation, segment: Segment) -> segments.OpenedSegment:
        cipher = self._sealer.cipher(conversation.wrapped_key)
        return segments.open_segment(conversation, segment, cipher)

    def _count(self, tier: str, entries: int) -> None:
        self._metrics.tier_reads.labels(tier).inc()
        if entries:
            self._metrics.tier_entries.labels(tier).inc(entries)
