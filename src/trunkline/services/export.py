"""Drives an export: one conversation whole, entry by entry, from the tiers at rest."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from trunkline.core import segments
from trunkline.core.envelope import associated_data_of, name_associated_data, opened
from trunkline.core.sealing import Cipher
from trunkline.errors import DataDamaged, InvalidInput, NotMember
from trunkline.model import JSON, TEXT, Conversation, Entry, Kind, Seq
from trunkline.ports.inspection import ColdInspection, HotInspection
from trunkline.ports.sealer import Sealer

Line = dict[str, object]


class Export:
    """Reads conversations of a hot and a cold store that nobody writes to."""

    def __init__(self, hot: HotInspection, cold: ColdInspection, sealer: Sealer) -> None:
        self._hot = hot
        self._cold = cold
        self._sealer = sealer

    async def find(self, asked: str) -> Conversation:
        """The conversation of this id, or else the only one of this name.

        Raises `NotMember` if there is none, `InvalidInput` if the name is not unique.
        """
        named: list[Conversation] = []
        async for key in self._hot.keys():
            row = await self._hot.conversation(key)
            if row is None:
                continue
            if row.id == asked:
                return row
            if row.sealed_name and self._name(row) == asked:
                named.append(row)
        if not named:
            raise NotMember(f"There is no conversation {asked!r}, neither as id nor as name.")
        if len(named) > 1:
            some = ", ".join(repr(row.id) for row in named[:3])
            raise InvalidInput(
                f"{len(named)} conversations are called {asked!r}: name one by its id ({some})."
            )
        return named[0]

    async def lines(self, conversation: Conversation) -> AsyncIterator[Line]:
        """Its entries 1..head, each as an object with seq, sender, time, kind and more.

        `time` is ISO 8601 in UTC. A message of plain text has `text`; every other entry has
        `content` (what its JSON says, or the body as it is) and `content_type`. An entry
        that refers to another has `refers_to`. Raises `DataDamaged` rather than skip one.
        """
        async for entry in self.entries(conversation):
            yield _line(entry)

    async def entries(self, conversation: Conversation) -> AsyncIterator[Entry]:
        """Its entries 1..head; raises `DataDamaged` rather than skip one (I8)."""
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        reached = 0
        async for entry in self._trimmed(conversation, cipher):
            reached += 1
            yield entry
        async for rows in self._hot.entries(conversation.key):
            for row in rows:
                reached += 1
                if row.seq != reached:
                    raise _lacking(reached)
                yield opened(row, cipher.open(row.sealed, associated_data_of(conversation.id, row)))
        if reached != conversation.head:
            raise _lacking(reached + 1)

    async def _trimmed(self, conversation: Conversation, cipher: Cipher) -> AsyncIterator[Entry]:
        """What only the cold tier has: 1..trimmed_up_to."""
        reached = 0
        async for segment in self._cold.segments(conversation.key):
            if reached >= conversation.trimmed_up_to:
                return
            if segment.last <= reached:
                continue
            if segment.first > reached + 1:
                raise _lacking(reached + 1)
            for entry in segments.open_segment(conversation, segment, cipher).entries:
                if reached < entry.seq <= conversation.trimmed_up_to:
                    reached += 1
                    yield entry
        if reached < conversation.trimmed_up_to:
            raise _lacking(reached + 1)

    def _name(self, conversation: Conversation) -> str:
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        return cipher.open(conversation.sealed_name, name_associated_data(conversation.id)).decode()


def _lacking(seq: int) -> DataDamaged:
    return DataDamaged(f"I1: entry {Seq(seq)} is in no tier.")


def _line(entry: Entry) -> Line:
    time = datetime.fromtimestamp(entry.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    line: Line = {
        "seq": entry.seq,
        "sender": entry.sender,
        "time": time.replace("+00:00", "Z"),
        "kind": str(entry.kind),
    }
    if entry.kind is Kind.MESSAGE and entry.content_type == TEXT:
        line["text"] = entry.body
    else:
        line["content_type"] = entry.content_type
        line["content"] = _content(entry)
    if entry.refers_to:
        line["refers_to"] = entry.refers_to
    return line


def _content(entry: Entry) -> object:
    if entry.content_type != JSON:
        return entry.body
    try:
        return msgspec.json.decode(entry.body)
    except msgspec.MsgspecError:
        return entry.body
