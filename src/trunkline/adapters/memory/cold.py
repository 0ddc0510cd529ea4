"""Cold store in memory: everything in sealed segments, for tests and simulation."""

from collections.abc import AsyncIterator, Sequence

from trunkline.adapters.memory.journal import Journal, JournaledWrites
from trunkline.adapters.memory.records import (
    COLD_DECODER,
    ColdRecord,
    SegmentRow,
)
from trunkline.core.rows import conversation_row, member_row
from trunkline.model import ColdMetadata, ConversationKey, Segment, Seq


class MemoryColdStore:
    """A `ports.cold.ColdStore`; with a journal it survives what the journal survives."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._segments: dict[ConversationKey, dict[tuple[Seq, Seq], Segment]] = {}
        self._metadata: dict[ConversationKey, ColdMetadata] = {}
        self._writes: JournaledWrites[ColdRecord] = JournaledWrites(
            journal, COLD_DECODER, clear=self._clear, apply=self._apply
        )

    async def put(self, segments: Sequence[Segment], metadata: Sequence[ColdMetadata]) -> None:
        """Stores segments and metadata; a segment of the same range replaces the one before."""
        if not segments and not metadata:
            return
        record = ColdRecord(
            [SegmentRow.of(segment) for segment in segments],
            [
                (conversation_row(m.conversation), [member_row(member) for member in m.members])
                for m in metadata
            ],
        )
        async with self._writes as writes:
            await writes.commit(record)

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[Segment]:
        """Every segment that holds some of after+1..up_to_inclusive, oldest first."""
        found = [
            segment
            for (first, last), segment in self._segments.get(key, {}).items()
            if first <= up_to_inclusive and last > after
        ]
        return sorted(found, key=lambda segment: (segment.first, segment.last))

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        """The conversation's metadata as of its last archive."""
        return self._metadata.get(key)

    async def keys(self) -> AsyncIterator[ConversationKey]:
        """Every conversation that has a segment, in key order."""
        for key in sorted(self._segments):
            yield key

    def _clear(self) -> None:
        self._segments.clear()
        self._metadata.clear()

    def _apply(self, record: ColdRecord) -> None:
        segments, metadata = record.values()
        for segment in segments:
            self._segments.setdefault(segment.key, {})[segment.first, segment.last] = segment
        for item in metadata:
            self._metadata[item.conversation.key] = item
