"""A cold tier without anything in it, for audits of the hot one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from trunkline.model import ColdMetadata, ConversationKey, Segment
from trunkline.ports.inspection import StoreFault


class NothingCold:
    """A `ports.inspection.ColdInspection` of a tier that holds nothing yet."""

    async def faults(self) -> Sequence[StoreFault]:
        return ()

    async def keys(self) -> AsyncIterator[ConversationKey]:
        for key in ():
            yield key

    async def segments(self, key: ConversationKey) -> AsyncIterator[Segment]:
        for segment in ():
            yield segment

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        return None
