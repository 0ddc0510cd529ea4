"""Answers what an audit asks of the cold tier: every row, as it stands there."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import trunkline.adapters.hbase.rows as rows
from trunkline.adapters.hbase.layout import check_layout
from trunkline.adapters.hbase.pool import ConnectionPool
from trunkline.adapters.hbase.rows import Place
from trunkline.adapters.hbase.table import Table
from trunkline.errors import TrunklineError
from trunkline.model import ColdMetadata, ConversationKey, Segment
from trunkline.ports.inspection import StoreFault

_PAGE_ROWS: Final = 16


class HbaseColdInspection:
    """A `ports.inspection.ColdInspection`.

    Raises `TierUnavailable` when HBase does not answer; in `faults` that is one of them.
    """

    def __init__(self, pool: ConnectionPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._table = Table(pool, name)

    async def faults(self) -> Sequence[StoreFault]:
        """The table's layout, and whether all of its regions are served.

        HBase keeps checksums of its files itself, and checks them when it reads.
        """
        try:
            await check_layout(self._pool, self._name)
        except TrunklineError as error:
            return [StoreFault(self._name, error.detail)]
        return []

    def keys(self) -> AsyncIterator[ConversationKey]:
        """Every key that a segment or metadata names, in key order.

        Raises `DataDamaged` after them if there is a row key that is none.
        """
        return self._table.keys(_is_any)

    async def segments(self, key: ConversationKey) -> AsyncIterator[Segment]:
        """All segments, by first and last."""
        start, stop = rows.end(key), rows.prefix(key)
        # Downwards is by rising first, but by falling last.
        same_first: list[Segment] = []
        while True:
            page = await self._table.page(start, stop, _PAGE_ROWS, downwards=True)
            for result in page:
                segment = rows.segment_of(result)
                if same_first and same_first[-1].first != segment.first:
                    for one in reversed(same_first):
                        yield one
                    same_first.clear()
                same_first.append(segment)
            if len(page) < _PAGE_ROWS:
                break
            start = rows.below(page[-1].row)
        for one in reversed(same_first):
            yield one

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata."""
        found = await self._table.get(rows.prefix(key))
        return None if found is None else rows.metadata_of(found)


def _is_any(place: Place) -> bool:
    return place.key >= 0
