"""The cold store on HBase: a row a segment, newest first (DESIGN section 5)."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import trunkline.adapters.hbase.rows as rows
from trunkline.adapters.hbase.rows import Place
from trunkline.adapters.hbase.table import Table
from trunkline.core.segments import SEGMENT_ENTRIES
from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq

_PAGE_ROWS: Final = 16


class HbaseColdStore:
    """A `ports.cold.ColdStore`.

    Raises `TierUnavailable` (retryable) when HBase does not answer, `DataDamaged` when a row
    does not hold what its key says.

    Rows are put and replaced, never deleted: all cells have one timestamp, so a deleted row
    would hide what is put there later, until HBase compacts (ADR 8).
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """Stores metadata, then segments; all are on disk when it returns.

        After an error some may be: the same put again settles it. Metadata goes first, since
        it holds the wrapped key: a segment that is there can always be opened.
        """
        puts = [rows.put_metadata(one) for one in metadata]
        puts.extend(rows.put_segment(segment) for segment in segments)
        await self._table.put(puts)

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[Segment]:
        """Segments that together hold what is here of after+1..up_to_inclusive, oldest first.

        The scan goes from the newest segment that begins within the range towards older ones.
        It ends when what was seen covers the whole range, or where no older segment can reach
        into it any more.
        """
        if after >= up_to_inclusive:
            return []
        found: list[Segment] = []
        start = rows.newest(key, up_to_inclusive)
        stop = rows.oldest(key, Seq(after + 1))
        # As many as a range without overlaps touches.
        most = min(_PAGE_ROWS, (up_to_inclusive - after - 1) // SEGMENT_ENTRIES + 2)
        while True:
            page = await self._table.page(start, stop, most)
            segments = (rows.segment_of(result) for result in page)
            found.extend(segment for segment in segments if segment.last > after)
            if len(page) < most or _covers(found, after, up_to_inclusive):
                return sorted(found, key=lambda segment: (segment.first, segment.last))
            start = rows.above(page[-1].row)
            most = _PAGE_ROWS

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata as of its last archive."""
        found = await self._table.get(rows.prefix(key))
        return None if found is None else rows.metadata_of(found)

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every conversation that has a segment, in key order.

        Reads all row keys, once for every 524,288 conversations: for rebuilding, not for
        serving.
        """
        return self._table.keys(_is_segment)


def _is_segment(place: Place) -> bool:
    return place.is_segment


def _covers(segments: Sequence[Segment], after: Seq, up_to_inclusive: Seq) -> bool:
    """Whether segments, by falling first seq, hold all of after+1..up_to_inclusive."""
    for segment in reversed(segments):
        if segment.first > after + 1:
            return False
        after = max(after, segment.last)
        if after >= up_to_inclusive:
            return True
    return False
