"""Answers of a sync that go over several frames: what was compared stays the same for all pages."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

import msgspec

from trunkline.core.views import last_visible
from trunkline.errors import InvalidRange
from trunkline.model import Conversation, ConversationId, Member, Seq, UserConversation
from trunkline.services.listings import Listing
from trunkline.services.pulls import encode_position, position_bytes
from trunkline.services.registry import Connection

_LINES_MOST: Final = 500_000
"""Of all answers that are kept together, 16 B each; those begun longest ago go first."""
_NUMBER_BITS: Final = 62
_BY_KEY: Final = attrgetter("key")


class Position(msgspec.Struct, array_like=True, frozen=True):
    """Where a long answer goes on: behind this key, to this cursor, in this answer."""

    cursor: int
    key: int = -1
    answer: int = 0


_decode_position = msgspec.msgpack.Decoder(Position).decode


def position_of(following: str) -> Position:
    """What `next` says; raises `InvalidRange`."""
    try:
        return _decode_position(position_bytes(following))
    except msgspec.MsgspecError:
        raise InvalidRange("`next` is not what an earlier answer gave.") from None


class Answer:
    """One sync of a connection, from the comparison to its last page.

    Attributes:
        number: random, tells it from all others, of earlier lives of the server, too.
        cursor: what the endpoint saves at the end.
        since: the cursor that the endpoint came with.
        after_key: behind this key it begins: up to it an answer that was given up had come.
        listing: with which the endpoint is compared.
        behind: what the endpoint holds of conversations that end beyond it, as far as known.
        asked: the ranges of which it was sent the sums of the parts, with where the views ended.
        wanted: those of which it is still to be.
        lines: what is to be listed, by key, once all is compared.
    """

    __slots__ = (
        "after_key", "asked", "behind", "cursor", "lines", "listing", "number", "since", "wanted",
    )  # fmt: skip

    def __init__(self, number: int, listing: Listing, since: int, start: Position) -> None:
        self.number = number
        self.listing = listing
        self.since = since
        self.cursor = start.cursor
        self.after_key = start.key
        self.behind: dict[ConversationId, Seq] = {}
        self.asked: Mapping[int, Mapping[ConversationId, Seq]] = {}
        self.wanted: list[int] = []
        self.lines: list[UserConversation] | None = None

    def settle(self) -> None:
        """All is compared: what may have something new is to be listed."""
        lines = {line.key: line for line in self.listing.changed_after(self.since)}
        for conversation in self.behind:
            line = self.listing.lines.get(conversation)
            if line is not None:
                lines[line.key] = line
        self.lines = [lines[key] for key in sorted(lines) if key > self.after_key]

    def behind_key(self, key: int) -> list[UserConversation]:
        """The lines behind a key."""
        lines = self.lines or []
        return lines[bisect_right(lines, key, key=_BY_KEY) :]

    def goes_on_at(self, position: Position) -> bool:
        """Whether the position is one in this answer, and all is compared."""
        return self.lines is not None and position.answer == self.number

    def lists(self, line: UserConversation, conversation: Conversation, member: Member) -> bool:
        """Whether the rows of a line hold something new for the endpoint.

        What was shredded is told once, by its version: nobody will ever hold the rest.
        """
        held = self.behind.get(line.conversation)
        return line.version > self.since or (
            held is not None
            and not conversation.shredded
            and last_visible(conversation, member) > held
        )

    def next(self, key: int) -> str:
        """Where it goes on behind a key."""
        return encode_position(Position(self.cursor, key, self.number))


class Answers:
    """The answers that are under way, one a connection, bounded in all."""

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self._random_bits = random_bits
        self._open: OrderedDict[Connection, tuple[Answer, int]] = OrderedDict()
        self._line_count = 0

    def begin(self, listing: Listing, since: int, start: Position) -> Answer:
        """A new answer to an endpoint that comes with the cursor `since`."""
        return Answer(self._random_bits(_NUMBER_BITS), listing, since, start)

    def keep(self, connection: Connection, answer: Answer) -> None:
        """More of the answer is to come, on this connection."""
        self.drop(connection)
        if not connection.open:
            return
        size = 1 + len(answer.lines or ()) + len(answer.behind)
        self._open[connection] = (answer, size)
        self._line_count += size
        while self._line_count > _LINES_MOST and len(self._open) > 1:
            self.drop(next(iter(self._open)))

    def of(self, connection: Connection) -> Answer | None:
        """The connection's answer, if there is one under way that was not pushed out."""
        kept = self._open.get(connection)
        return kept[0] if kept else None

    def drop(self, connection: Connection) -> None:
        """The answer has ended, or the connection has."""
        _, size = self._open.pop(connection, (None, 0))
        self._line_count -= size
