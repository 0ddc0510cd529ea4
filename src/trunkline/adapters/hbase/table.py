"""The table as the store and its inspection ask it: single rows, scans page by page, all keys."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

import trunkline.adapters.hbase.rows as rows
from trunkline.adapters.hbase.idl import Struct, idl
from trunkline.adapters.hbase.rows import Place
from trunkline.errors import DataDamaged
from trunkline.model import ConversationKey

_KEYS_A_PAGE: Final = 1_024
_KEYS_A_PASS: Final = 1 << 19
_KEYS_UNSORTED: Final = 1 << 16
_PUT_BYTES: Final = 8 << 20
_PUT_ROWS: Final = 64
# One cell of each row, without its value.
_KEYS_ONLY: Final = b"FirstKeyOnlyFilter() AND KeyOnlyFilter()"


class Calls(Protocol):
    """What answers the calls of the Thrift service."""

    async def call(self, name: str, *arguments: object, seconds: float | None = None) -> Any:
        """The answer; raises `TierUnavailable`."""
        ...


class Table:
    """One table of HBase. Raises `TierUnavailable` when HBase does not answer."""

    def __init__(self, pool: Calls, name: str) -> None:
        """`name`: with its namespace before a colon, unless it is the default."""
        self._pool = pool
        self._name = name.encode()

    async def get(self, row: bytes) -> Struct | None:
        """A row, if it is there."""
        found = await self._pool.call("get", self._name, idl.TGet(row=row))
        if found.row is None and not found.columnValues:
            return None
        if found.row != row:
            raise DataDamaged(f"HBase: asked for row {row.hex()}, got {found.row!r}.")
        return found

    async def put(self, puts: Sequence[Struct]) -> None:
        """Stores rows, each as a whole, in calls of bounded size; on disk when it returns."""
        batch: list[Struct] = []
        batch_bytes = 0
        for put in puts:
            size = rows.put_bytes(put)
            if batch and (batch_bytes + size > _PUT_BYTES or len(batch) == _PUT_ROWS):
                await self._pool.call("putMultiple", self._name, batch)
                batch, batch_bytes = [], 0
            batch.append(put)
            batch_bytes += size
        if batch:
            await self._pool.call("putMultiple", self._name, batch)

    async def page(
        self,
        start: bytes,
        stop: bytes,
        most_rows: int,
        *,
        downwards: bool = False,
        keys_only: bool = False,
    ) -> Sequence[Struct]:
        """The first rows from `start` to before `stop` (empty: to the end).

        Fewer than `most_rows` are all that are there. `downwards`: from a high start to a low
        stop. Each page is a question of its own, so nothing is left open on the server, and
        any of them may be asked again.
        """
        scan = idl.TScan(
            startRow=start,
            stopRow=stop,
            caching=most_rows,
            limit=most_rows,
            filterString=_KEYS_ONLY if keys_only else None,
            reversed=downwards or None,
        )
        page = await self._pool.call("getScannerResults", self._name, scan, most_rows)
        _check_order(page, start, stop, downwards=downwards)
        return page  # type: ignore[no-any-return]

    async def keys(self, wanted: Callable[[Place], bool]) -> AsyncIterator[ConversationKey]:
        """The keys that a wanted row names, once each, in key order.

        Rows lie by a hash of the key, so the order is made here: a pass over all row keys
        gathers the lowest 524,288 keys (about 40 MB), the next pass those above, and so on.
        A row key that is none of ours raises `DataDamaged`, after all that the others name.
        """
        after = -1
        while True:
            found = _LowestKeys(after)
            await self._gather(found, wanted)
            kept = found.kept()
            for key in kept:
                yield ConversationKey(key)
            if len(kept) < _KEYS_A_PASS:
                break
            after = kept[-1]
        if found.damage is not None:
            raise found.damage

    async def _gather(self, found: "_LowestKeys", wanted: Callable[[Place], bool]) -> None:
        start = b""
        while True:
            page = await self.page(start, b"", _KEYS_A_PAGE, keys_only=True)
            for result in page:
                start = rows.above(result.row)
                try:
                    place = rows.place(result.row)
                except DataDamaged as error:
                    found.damage = error
                    continue
                if wanted(place):
                    found.add(place.key)
                if place.is_segment:
                    # The rest of this conversation tells nothing new.
                    start = rows.end(place.key)
            if len(page) < _KEYS_A_PAGE:
                return


class _LowestKeys:
    """The lowest keys above a bound, of all that are added."""

    def __init__(self, after: int) -> None:
        self.damage: DataDamaged | None = None
        self._after = after
        self._kept: list[int] = []
        self._unsorted: set[int] = set()

    def add(self, key: int) -> None:
        """Takes a key into account."""
        if key > self._after:
            self._unsorted.add(key)
            if len(self._unsorted) == _KEYS_UNSORTED:
                self.kept()

    def kept(self) -> list[int]:
        """The lowest 524,288 so far, in order, once each."""
        merged = sorted(self._unsorted.difference(self._kept))
        # Two sorted runs are merged by this in one go.
        self._kept = sorted(self._kept + merged)[:_KEYS_A_PASS]
        self._unsorted.clear()
        return self._kept


def _check_order(page: Sequence[Struct], start: bytes, stop: bytes, *, downwards: bool) -> None:
    """Refuses rows that were not asked for, or not in this order."""
    at = None
    for result in page:
        row = result.row
        if downwards:
            sound = stop < row <= start and (at is None or row < at)
        else:
            sound = start <= row and (row < stop or not stop) and (at is None or row > at)
        if not sound:
            raise DataDamaged(f"HBase: row {row.hex()} was not asked for.")
        at = row
