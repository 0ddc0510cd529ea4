"""Drives an audit: everything that the stores hold, checked against the promises.

What cannot be read is a finding too, and the rest is checked all the same.
"""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from trunkline.core import segments
from trunkline.core.audit_ids import KnownIdsCheck
from trunkline.core.audit_rows import (
    check_conversation,
    check_history,
    check_listings,
    check_macs,
    check_member,
    check_metadata,
    check_offsets,
    checkpoints,
)
from trunkline.core.audit_walk import Walk
from trunkline.core.auditing import AuditReport, Counted, Findings, Problem
from trunkline.core.sealing import Cipher
from trunkline.errors import DataDamaged, KeyringWrong, SealBroken, TrunklineError
from trunkline.model import Conversation, ConversationKey, Member
from trunkline.ports.clock import Clock
from trunkline.ports.inspection import ColdInspection, HotInspection, StoreFault
from trunkline.ports.sealer import Sealer

Answer = TypeVar("Answer")
OnConversation = Callable[[Counted], None]


class Audit:
    """One audit of a hot and a cold store.

    Args:
        sealer: without it nothing sealed is opened; why it is missing must be in `findings`.
        findings: what was found before, if anything.
        on_conversation: is told the counts so far after each conversation.
    """

    def __init__(
        self,
        hot: HotInspection,
        cold: ColdInspection,
        sealer: Sealer | None,
        clock: Clock,
        *,
        findings: Findings | None = None,
        on_conversation: OnConversation | None = None,
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._sealer = sealer
        self._clock = clock
        self._findings = findings or Findings()
        self._counted = Counted()
        self._on_conversation = on_conversation

    async def run(self) -> AuditReport:
        """Checks everything and reports."""
        started = self._clock.monotonic()
        for name, faults in (("hot", self._hot.faults()), ("cold", self._cold.faults())):
            found: Sequence[StoreFault] = await self._answer(name, faults, ())
            for fault in found:
                self._findings.add("file_damaged", fault.where, fault.what)
        for key in await self._keys():
            await self._conversation(key)
            if self._on_conversation is not None:
                self._on_conversation(self._counted)
        return AuditReport(
            self._counted,
            tuple(self._findings.kept),
            self._findings.count,
            self._clock.monotonic() - started,
        )

    async def _keys(self) -> list[ConversationKey]:
        keys: set[ConversationKey] = set()
        for name, part in (("hot", self._hot.keys()), ("cold", self._cold.keys())):
            async for key in self._parts(name, part):
                keys.add(key)
        return sorted(keys)

    async def _conversation(self, key: ConversationKey) -> None:
        self._counted.conversations += 1
        where = f"key {key:#018x}"
        conversation = await self._answer(where, self._hot.conversation(key), None)
        if conversation is None:
            await self._orphans(key, where)
            return
        where = conversation.id
        self._take(where, check_conversation(conversation))
        self._counted.shredded += conversation.shredded
        cipher = self._cipher(conversation)
        members: Sequence[Member] = await self._answer(where, self._hot.members(key), ())
        metadata = await self._answer(where, self._cold.metadata(key), None)
        positions = checkpoints((*members, *(metadata.members if metadata else ())))
        walk = Walk(conversation, cipher, positions)
        await self._walk_cold(conversation, cipher, walk)
        await self._walk_hot(conversation, walk)
        self._counted.entries += walk.entries
        self._take(where, check_history(conversation, members, walk, cipher))
        for member in members:
            self._take(where, check_member(member, conversation, walk))
        if self._sealer is not None:
            cold_members = metadata.members if metadata else ()
            for rows in (members, cold_members):
                self._take(where, check_macs(conversation, rows, self._sealer.macs))
        self._counted.members += len(members)
        cold_cipher = self._cipher(metadata.conversation) if metadata else None
        self._take(
            where, check_metadata(conversation, members, metadata, walk, cipher, cold_cipher)
        )
        await self._beside(conversation, members, walk)

    async def _walk_cold(
        self, conversation: Conversation, cipher: Cipher | None, walk: Walk
    ) -> None:
        where = conversation.id
        async for segment in self._parts(where, self._cold.segments(conversation.key)):
            self._counted.segments += 1
            self._counted.sealed_bytes += len(segment.sealed)
            part = None
            if cipher is not None:
                try:
                    part = segments.open_segment(conversation, segment, cipher)
                    self._counted.cold_entries += len(part.entries)
                except (DataDamaged, struct.error):
                    self._findings.add(
                        "seal_broken", where,
                        f"Segment {segment.first} to {segment.last} does not open.",
                    )  # fmt: skip
            walk.take_segment(segment, part)
        walk.end_cold()
        self._drain(where, walk)

    async def _walk_hot(self, conversation: Conversation, walk: Walk) -> None:
        where = conversation.id
        async for rows in self._parts(where, self._hot.entries(conversation.key)):
            self._counted.hot_entries += len(rows)
            self._counted.sealed_bytes += sum(len(row.sealed) for row in rows)
            walk.take_rows(rows)
            self._drain(where, walk)
        walk.end_hot(conversation)
        self._drain(where, walk)

    async def _beside(
        self, conversation: Conversation, members: Sequence[Member], walk: Walk
    ) -> None:
        """Idempotency rows, conversation lists, read offsets."""
        key, where = conversation.key, conversation.id
        check = KnownIdsCheck(conversation, walk, now_ms=self._clock.now_ms())
        async for known in self._parts(where, self._hot.known_ids(key)):
            self._counted.known_ids += len(known)
            rows = [(row.sender, row.client_message_id, row.seq) for row in known]
            self._take(where, check.take(rows))
        self._take(where, check.end())
        listings = await self._answer(where, self._hot.listings(key), ())
        self._counted.listings += len(listings)
        listed = [(line.user, line.conversation) for line in listings]
        self._take(where, check_listings(conversation, members, listed))
        offsets = await self._answer(where, self._hot.offsets(key), ())
        self._counted.offsets += len(offsets)
        self._take(where, check_offsets(conversation, members, offsets))

    async def _orphans(self, key: ConversationKey, where: str) -> None:
        """Records of a conversation that has no row."""
        left: dict[str, int] = {}
        async for rows in self._parts(where, self._hot.entries(key)):
            left["entries"] = left.get("entries", 0) + len(rows)
        async for _ in self._parts(where, self._cold.segments(key)):
            left["segments"] = left.get("segments", 0) + 1
        left["members"] = len(await self._answer(where, self._hot.members(key), ()))
        names = ", ".join(f"{count} {what}" for what, count in left.items() if count)
        self._findings.add(
            "conversation_missing", where, f"It has no row, but {names or 'other records'}."
        )

    def _cipher(self, conversation: Conversation) -> Cipher | None:
        if self._sealer is None or conversation.shredded:
            return None
        try:
            return self._sealer.cipher(conversation.wrapped_key, conversation.place)
        except (KeyringWrong, SealBroken) as error:
            self._findings.add("keyring_wrong", conversation.id, error.detail)
            return None

    def _take(self, where: str, problems: Iterable[Problem]) -> None:
        for code, what in problems:
            self._findings.add(code, where, what)

    def _drain(self, where: str, walk: Walk) -> None:
        self._take(where, walk.problems)
        walk.problems.clear()

    async def _answer(self, where: str, asked: Awaitable[Answer], otherwise: Answer) -> Answer:
        """The store's answer; an error becomes a finding."""
        try:
            return await asked
        except TrunklineError as error:
            self._findings.add("unreadable", where, error.detail)
            return otherwise

    async def _parts(self, where: str, parts: AsyncIterator[Answer]) -> AsyncIterator[Answer]:
        """The parts of the store's answer, up to an error, which becomes a finding."""
        try:
            async for part in parts:
                yield part
        except TrunklineError as error:
            self._findings.add("unreadable", where, error.detail)
