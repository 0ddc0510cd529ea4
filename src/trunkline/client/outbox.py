"""Decides what is sent next: unacknowledged sends in order, resent until settled (I6)."""

import asyncio
from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec

from trunkline.client.store import Outgoing
from trunkline.core.ids import single_conversation_id
from trunkline.errors import TrunklineError
from trunkline.model import ClientMessageId, ConversationId, Seq, UserId
from trunkline.wire.encoding import MESSAGEPACK
from trunkline.wire.frames import Add, Create, Leave, Remove, Rename, Send

Writing = Send | Create | Add | Remove | Leave | Rename
"""The frames that become an entry."""


class SentMessage(msgspec.Struct, frozen=True, gc=False):
    """What the server made of a send.

    `duplicate`: it was stored before, under this very id; `time_ms` is 0 then.
    """

    id: ClientMessageId
    conversation: ConversationId
    seq: Seq
    time_ms: int
    duplicate: bool


class Posted:
    """A send on its way; awaiting it gives the `SentMessage` or raises why it was refused."""

    __slots__ = ("_settled", "conversation", "frame", "id", "in_flight_since", "number", "sent")

    def __init__(self, number: int, frame: Writing, conversation: ConversationId) -> None:
        self.number = number
        self.frame = frame
        self.conversation = conversation
        self.id = frame.id
        self.sent = False
        self.in_flight_since = 0.0
        self._settled: asyncio.Future[SentMessage] | None = None

    def __lt__(self, other: "Posted") -> bool:
        return self.number < other.number

    def __await__(self) -> Generator[Any, None, SentMessage]:
        # Shielded: one waiter's cancellation neither takes the send back nor ends others' waits.
        return asyncio.shield(self._future()).__await__()

    @property
    def awaited(self) -> bool:
        """Whether somebody waits, or waited, for the outcome."""
        return self._settled is not None

    def settle(self, outcome: SentMessage | TrunklineError) -> None:
        """Tells whoever waits."""
        future = self._future()
        if future.done():
            return
        if isinstance(outcome, SentMessage):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
            future.exception()  # nobody has to wait for it

    def _future(self) -> asyncio.Future[SentMessage]:
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        return self._settled


class Outbox:
    """The sends of one endpoint that are not settled yet."""

    def __init__(self, user: UserId, stored: Sequence[Outgoing]) -> None:
        self._user = user
        self._waiting: list[Posted] = []
        self._flying: dict[tuple[ConversationId, ClientMessageId], Posted] = {}
        self._keys: set[tuple[ConversationId, ClientMessageId]] = set()
        self._posted: list[Outgoing] = []
        self._settled: list[int] = []
        self._next = 1
        for outgoing in stored:
            frame = MESSAGEPACK.decode_client(outgoing.frame)
            assert isinstance(frame, Writing)
            heappush(self._waiting, self._new(outgoing.number, frame))

    def __len__(self) -> int:
        return len(self._keys)

    def post(self, frame: Writing) -> Posted:
        """Adds a send at the end.

        One with the same id in the same conversation that is still on its way is joined.
        """
        key = (self._conversation(frame), frame.id)
        if key in self._keys:
            return self._find(key)
        posted = self._new(self._next, frame)
        heappush(self._waiting, posted)
        self._posted.append(Outgoing(posted.number, MESSAGEPACK.encode(frame)))
        return posted

    def _find(self, key: tuple[ConversationId, ClientMessageId]) -> Posted:
        if (flying := self._flying.get(key)) is not None:
            return flying
        return next(p for p in self._waiting if (p.conversation, p.id) == key)

    def _new(self, number: int, frame: Writing) -> Posted:
        posted = Posted(number, frame, self._conversation(frame))
        self._next = number + 1
        self._keys.add((posted.conversation, posted.id))
        return posted

    def _conversation(self, frame: Writing) -> ConversationId:
        if frame.conversation is not None:
            return frame.conversation
        assert isinstance(frame, Send)
        assert frame.to is not None
        return single_conversation_id(self._user, frame.to)

    def has_room(self, window: int) -> bool:
        """Whether something waits and fewer than `window` are in flight."""
        return bool(self._waiting) and len(self._flying) < window

    def next(self, now: float) -> Posted:
        """The next to send, in flight from `now` on."""
        posted = heappop(self._waiting)
        posted.in_flight_since = now
        self._flying[posted.conversation, posted.id] = posted
        return posted

    @property
    def oldest_in_flight(self) -> float | None:
        """When the one that waits longest for its answer was sent."""
        first = next(iter(self._flying.values()), None)
        return None if first is None else first.in_flight_since

    def answered(
        self, conversation: ConversationId | None, client_message_id: ClientMessageId
    ) -> Posted | None:
        """The send in flight that an ack or error answers, if there is one."""
        if conversation is not None:
            return self._flying.get((conversation, client_message_id))
        found = [p for p in self._flying.values() if p.id == client_message_id]
        return found[0] if len(found) == 1 else None

    def settled(self, posted: Posted) -> None:
        """It has its final answer."""
        key = (posted.conversation, posted.id)
        self._flying.pop(key, None)
        self._keys.discard(key)
        self._settled.append(posted.number)

    def again(self, posted: Posted) -> None:
        """It must be sent once more, in its old place of the order."""
        if self._flying.pop((posted.conversation, posted.id), None) is not None:
            heappush(self._waiting, posted)

    def connection_lost(self) -> None:
        """What was in flight has no answer: all of it is sent again, in order."""
        for posted in list(self._flying.values()):
            self.again(posted)

    def take_changes(self) -> tuple[list[Outgoing], list[int]]:
        """What was posted and settled since the last call, for the local store."""
        changes = (self._posted, self._settled)
        self._posted, self._settled = [], []
        return changes

    @property
    def has_changes(self) -> bool:
        """Whether the local store lacks something."""
        return bool(self._posted or self._settled)

    def fail(self, error: TrunklineError) -> None:
        """Nothing more is sent in this run: tells all who wait; the store keeps the sends."""
        for posted in [*self._flying.values(), *self._waiting]:
            posted.settle(error)
