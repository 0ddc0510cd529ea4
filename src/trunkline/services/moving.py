"""Moves all that one pair of stores holds into another, and compares the two afterwards.

Cold first, then lists and read offsets, then each conversation in one transaction: what is not
whole yet has no conversation that anybody could see. So a move that was cut off anywhere goes on
by doing the same again without the conversations that are there.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from trunkline.core.holdings import Holdings
from trunkline.core.ids import shard_hash, shard_of
from trunkline.errors import DataDamaged, TargetNotEmpty
from trunkline.model import ColdMetadata, Conversation, ConversationKey, OffsetMove, Segment
from trunkline.ports.cold import ColdStore
from trunkline.ports.inspection import ColdInspection, HotInspection, Listing
from trunkline.ports.intake import HotIntake

_CONVERSATIONS_AT_ONCE: Final = 64
_SEGMENT_BYTES_AT_ONCE: Final = 4 << 20
_LINES_AT_ONCE: Final = 5_000

OnProgress = Callable[[str, int, int], None]
"""Told the stage, how many conversations are done in it, and of how many."""


class Holder(NamedTuple):
    """A hot and a cold store to look into."""

    hot: HotInspection
    cold: ColdInspection


class MoveReport(msgspec.Struct):
    """What stands on both sides. `entries`: all of them, in whatever tier.

    `kept`: conversations that an earlier run had moved. `mismatches`: sentences, one for each
    conversation that is not the same on both sides; none where the move is whole.
    """

    conversations: int = 0
    kept: int = 0
    entries: int = 0
    hot_entries: int = 0
    segments: int = 0
    members: int = 0
    client_message_ids: int = 0
    offsets: int = 0
    mismatches: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


async def keys_of(source: Holder) -> list[ConversationKey]:
    """Every key that either store names, in order."""
    keys: set[ConversationKey] = set()
    for part in (source.hot.keys(), source.cold.keys()):
        async for key in part:
            keys.add(key)
    return sorted(keys)


class Move:
    """One move of the conversations `keys`; nobody writes on either side meanwhile."""

    def __init__(
        self,
        source: Holder,
        keys: Sequence[ConversationKey],
        intake: HotIntake,
        cold: ColdStore,
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._keys = keys
        self._intake = intake
        self._cold = cold
        self._on_progress = on_progress

    async def present(self, *, resume: bool) -> set[ConversationKey]:
        """The conversations that the target holds already, which an earlier run moved.

        Raises `TargetNotEmpty` if there are any and this is not to `resume`, or if one is not
        the source's as it stands; `DataDamaged` for records without a conversation.
        """
        found: set[ConversationKey] = set()
        for done, part in _parts(self._keys):
            mine = {row.key: row for row in [await self._row(key) for key in part]}
            for row in await self._intake.held(list(mine.values())):
                if row != mine.get(row.key):
                    raise TargetNotEmpty(
                        f"The cluster holds another {row.id}, or another moment of it: "
                        "no conversation was changed."
                    )
                found.add(row.key)
            self._on_progress("looking", done, len(self._keys))
        if found and not resume:
            raise TargetNotEmpty(
                f"The cluster holds {len(found)} of the directory's {len(self._keys)} "
                "conversations: --resume goes on with a move that was cut off."
            )
        return found

    async def run(self, present: set[ConversationKey]) -> None:
        """Moves all but what is `present`."""
        for done, part in _parts(self._keys):
            rows = [await self._row(key) for key in part if key not in present]
            await self._move_cold(rows)
            await self._move_lists(rows)
            for row in rows:
                await self._intake.take(row, self._source.hot)
            self._on_progress("moving", done, len(self._keys))

    async def _row(self, key: ConversationKey) -> Conversation:
        row = await self._source.hot.conversation(key)
        if row is None:
            raise DataDamaged(f"Key {key:#018x} has no conversation: run `trunkline audit`.")
        if shard_of(key) != shard_hash(row.id):
            raise DataDamaged(f"The conversation {row.id} has a key of another shard.")
        return row

    async def _move_cold(self, rows: Sequence[Conversation]) -> None:
        metadata: list[ColdMetadata] = []
        segments: list[Segment] = []
        size = 0
        for row in rows:
            found = await self._source.cold.metadata(row.key)
            if found is not None:
                metadata.append(found)
            async for segment in self._source.cold.segments(row.key):
                segments.append(segment)
                size += len(segment.sealed)
                if size > _SEGMENT_BYTES_AT_ONCE:
                    await self._cold.put(segments, metadata)
                    metadata, segments, size = [], [], 0
        await self._cold.put(segments, metadata)

    async def _move_lists(self, rows: Sequence[Conversation]) -> None:
        listings: dict[ConversationKey, Sequence[Listing]] = {}
        offsets: list[OffsetMove] = []
        lines = 0
        for row in rows:
            listings[row.key] = await self._source.hot.listings(row.key)
            offsets += await self._source.hot.offsets(row.key)
            lines += len(listings[row.key])
            if lines + len(offsets) > _LINES_AT_ONCE:
                await self._intake.take_lists(listings, offsets)
                listings, offsets, lines = {}, [], 0
        await self._intake.take_lists(listings, offsets)


async def compare(
    source: Holder, target: Holder, keys: Sequence[ConversationKey], on_progress: OnProgress
) -> MoveReport:
    """Counts what the source holds, and names each conversation that the target does not equal.

    Compared are the row (with head, count and digest), members, every entry and client message
    id, lists, offsets, metadata and segments, over all their bytes; nothing is opened.
    """
    report = MoveReport(conversations=len(keys))
    for done, part in _parts(keys):
        for key in part:
            mine, theirs = await _holdings(source, key), await _holdings(target, key)
            row = await source.hot.conversation(key)
            name = row.id if row else f"key {key:#018x}"
            report.mismatches += [f"{name}: {what}" for what in mine.differences(theirs)]
            report.entries += row.head if row else 0
            report.hot_entries += mine.count("entries")
            report.segments += mine.count("segments")
            report.members += mine.count("members")
            report.client_message_ids += mine.count("client message ids")
            report.offsets += mine.count("offsets")
        on_progress("comparing", done, len(keys))
    return report


async def _holdings(holder: Holder, key: ConversationKey) -> Holdings:
    hot, cold, found = holder.hot, holder.cold, Holdings()
    if (row := await hot.conversation(key)) is not None:
        found.add_conversation(row)
    found.add_members(await hot.members(key))
    async for entries in hot.entries(key):
        found.add("entries", entries)
    async for known in hot.known_ids(key):
        found.add("client message ids", known)
    found.add("lines of lists", await hot.listings(key))
    found.add("offsets", await hot.offsets(key))
    if (metadata := await cold.metadata(key)) is not None:
        found.add_metadata(metadata)
    async for segment in cold.segments(key):
        found.add_segment(segment)
    return found


def _parts(
    keys: Sequence[ConversationKey],
) -> Iterator[tuple[int, Sequence[ConversationKey]]]:
    """The keys in parts, each with how many there are up to its end."""
    rest, done = iter(keys), 0
    while part := list(islice(rest, _CONVERSATIONS_AT_ONCE)):
        done += len(part)
        yield done, part
