"""Hands the entries of all conversations to one reader, in order, each once.

What arrives while the reader is slow is not kept here past a bound: the reader takes the
rest from the local store.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from trunkline.client.endpoint import Endpoint
from trunkline.model import ConversationId, Entry, Seq

_PAGE_ENTRIES = 256


class Feed:
    """One reader's place in every conversation."""

    def __init__(self, endpoint: Endpoint, *, from_start: bool, bound: int) -> None:
        self._endpoint = endpoint
        self._from_start = from_start
        self._bound = bound
        self._count = 0
        self._news: dict[ConversationId, list[Sequence[Entry]]] = {}
        self._positions: dict[ConversationId, Seq] = {}
        self._turn = 0
        self._arrived = asyncio.Event()
        self._note_held()

    def deliver(self, conversation: ConversationId, entries: Sequence[Entry]) -> None:
        """Entries became part of a copy."""
        news = self._news.setdefault(conversation, [])
        if self._count < self._bound:
            news.append(entries)
            self._count += len(entries)
        self._arrived.set()

    def restart(self) -> None:
        """The endpoint's copies are others: of these the reader has seen nothing."""
        self._news = {}
        self._count = 0
        self._positions.clear()
        self._turn_back()
        self._note_held()

    def healed(self, conversation: ConversationId, first: Seq | None) -> None:
        """The copy is whole again; what the reader has seen from `first` on is another now."""
        if first is not None and self._position(conversation) >= first:
            self._positions[conversation] = Seq(first - 1)
            self._turn_back()
        self._note_held()

    def end(self) -> None:
        """Wakes the reader up: the client failed."""
        self._arrived.set()

    async def entries(self) -> AsyncGenerator[tuple[ConversationId, Entry], None]:
        """Every entry once, in order within its conversation; raises what ended the client."""
        while True:
            while self._news:
                conversation = next(iter(self._news))
                parts = self._news.pop(conversation)
                self._count -= sum(map(len, parts))
                async for entry in self._new_of(conversation, parts):
                    yield conversation, entry
            self._endpoint.raise_failure()
            self._arrived.clear()
            await self._arrived.wait()

    async def _new_of(
        self, conversation: ConversationId, parts: Sequence[Sequence[Entry]]
    ) -> AsyncGenerator[Entry, None]:
        """What is new in these parts, then in the copy."""
        turn = self._turn
        for part in parts:
            for entry in self._following(conversation, part):
                if turn != self._turn:
                    return
                self._positions[conversation] = entry.seq
                yield entry
        while turn == self._turn and conversation not in self._news:
            entries = await self._missed(conversation)
            if not entries:
                return
            for entry in entries:
                if turn != self._turn:
                    return
                self._positions[conversation] = entry.seq
                yield entry

    def _turn_back(self) -> None:
        """What is being read now is not what is to be read."""
        self._turn += 1
        self._arrived.set()

    def _note_held(self) -> None:
        for conversation, held in self._endpoint.replica.held.items():
            if held.last > self._position(conversation):
                self._news.setdefault(conversation, [])
        self._arrived.set()

    def _following(self, conversation: ConversationId, part: Sequence[Entry]) -> Sequence[Entry]:
        """What of a part is new, unless something before it is missing here."""
        if conversation not in self._endpoint.replica.held:
            return ()
        position = self._position(conversation)
        if part[-1].seq <= position or part[0].seq > position + 1:
            return ()
        return part[position + 1 - part[0].seq :]

    async def _missed(self, conversation: ConversationId) -> Sequence[Entry]:
        """A page of what the copy holds beyond the reader's place."""
        held = self._endpoint.replica.held.get(conversation)
        if held is None or held.last <= (position := self._position(conversation)):
            return ()
        up_to = Seq(min(held.last, position + _PAGE_ENTRIES))
        return await self._endpoint.read(conversation, position, up_to)

    def _position(self, conversation: ConversationId) -> Seq:
        held = self._endpoint.replica.held[conversation]
        start = Seq(held.first - 1)
        position = self._positions.get(conversation)
        if position is None:
            position = start if self._from_start else held.live_after
        if position < start:  # the view began anew
            position = start
        self._positions[conversation] = position
        return position
