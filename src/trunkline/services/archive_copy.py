"""Copies entries into cold segments and reads them back (DESIGN section 7, I10)."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from trunkline.core import segments
from trunkline.core.digest import total
from trunkline.core.envelope import associated_data_of, opened
from trunkline.errors import DataDamaged
from trunkline.model import (
    ColdMetadata,
    Conversation,
    ConversationKey,
    Kind,
    Segment,
    Seq,
    StoredEntry,
)
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.ports.tasks import ArchiveTask


class Part(msgspec.Struct, frozen=True, gc=False):
    """A contiguous run of one task's conversation that is to be copied."""

    task: ArchiveTask
    stored: Sequence[StoredEntry]

    @property
    def conversation(self) -> Conversation:
        """The row as it was leased."""
        return self.task.conversation

    @property
    def after(self) -> Seq:
        """Seq before the first entry."""
        return Seq(self.stored[0].seq - 1)

    @property
    def up_to(self) -> Seq:
        """Seq of the last entry."""
        return self.stored[-1].seq

    @property
    def reaches_head(self) -> bool:
        """Whether nothing of the task is left behind it."""
        return self.up_to >= self.conversation.head


class Copier:
    """Seals, stores, reads back and compares; yields to the loop after every segment."""

    def __init__(
        self, hot: HotStore, cold: ColdStore, sealer: Sealer, *, most_conversations: int
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._sealer = sealer
        self._most_conversations = most_conversations
        self._stored_metadata: dict[ConversationKey, tuple[int, bytes, bytes]] = {}

    async def copy(self, parts: Sequence[Part]) -> None:
        """Stores the parts, with the metadata of conversations that changed, in one put."""
        sealed: list[Segment] = []
        metadata: list[ColdMetadata] = []
        for part in parts:
            sealed.extend([segment async for segment in self._segments(part)])
            state = _metadata_state(part.conversation)
            if self._stored_metadata.get(part.conversation.key) != state:
                members = await self._hot.members(part.conversation.key)
                metadata.append(ColdMetadata(part.conversation, tuple(members.values())))
        await self._cold.put(sealed, metadata)
        if len(self._stored_metadata) > self._most_conversations:
            self._stored_metadata.clear()
        for stored in metadata:
            conversation = stored.conversation
            self._stored_metadata[conversation.key] = _metadata_state(conversation)

    async def _segments(self, part: Part) -> AsyncIterator[Segment]:
        conversation = part.conversation
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        for first, last in segments.plan(part.after, part.up_to):
            run = part.stored[first - 1 - part.after : last - part.after]
            entries = [
                opened(e, cipher.open(e.sealed, associated_data_of(conversation.id, e)))
                for e in run
            ]
            countable_before = run[0].countable - (run[0].kind is Kind.MESSAGE)
            yield segments.seal(conversation, entries, countable_before, cipher)
            await asyncio.sleep(0)

    async def verify(self, part: Part) -> None:
        """Reads the part back by a fresh scan; raises `DataDamaged` unless it is all there.

        Every segment is opened, and its digest compared with the sum of hot's hashes.
        """
        conversation = part.conversation
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        hashes = {entry.seq: entry.entry_hash for entry in part.stored}
        covered = part.after
        for segment in await self._cold.read(conversation.key, part.after, part.up_to):
            segments.open_segment(conversation, segment, cipher)
            await asyncio.sleep(0)
            if segment.first <= part.after or segment.last > part.up_to:
                continue
            run = range(segment.first, segment.last + 1)
            if segment.digest != total(hashes[Seq(seq)] for seq in run):
                raise DataDamaged(f"I10: cold differs in {segment.first} to {segment.last}.")
            # An earlier try that was cut short may have left a shorter segment of the same run.
            if segment.first <= covered + 1:
                covered = max(covered, segment.last)
        if covered != part.up_to:
            raise DataDamaged(f"I10: cold gave back {covered} of {part.up_to}.")


def _metadata_state(conversation: Conversation) -> tuple[int, bytes, bytes]:
    """What of a conversation makes its metadata worth storing anew."""
    return conversation.membership_version, conversation.sealed_name, conversation.wrapped_key
