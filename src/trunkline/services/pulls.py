"""Answers pulls: many conversations' ranges in pages bounded by bytes (DESIGN section 4)."""

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from trunkline.core.ids import check_conversation_id
from trunkline.core.views import clip
from trunkline.errors import InvalidRange
from trunkline.model import Conversation, ConversationId, Seq
from trunkline.services.access import Views
from trunkline.services.metrics import Metrics
from trunkline.services.reader import EncodedRun, Reader
from trunkline.services.registry import Connection
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import Pull, Pulled, Range, Run


class _Left(msgspec.Struct, array_like=True, frozen=True):
    """What of a pull is still to come."""

    ranges: list[tuple[ConversationId, Seq, Seq]]


_RANGES_AT_ONCE: Final = 8
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Left).decode


def encode_position(left: msgspec.Struct) -> str:
    """A position in a paged answer as an opaque string for the client to hand back."""
    return base64.urlsafe_b64encode(_encode(left)).decode()


def position_bytes(text: str) -> bytes:
    """The inverse of `encode_position`, up to decoding; raises `InvalidRange`."""
    try:
        return base64.urlsafe_b64decode(text.encode())
    except (binascii.Error, ValueError):
        raise InvalidRange("`next` is not what an earlier answer gave.") from None


class _Asked(NamedTuple):
    """A range after+1..up_to of which the user may see all."""

    conversation: Conversation
    after: Seq
    up_to: Seq


class Pulls:
    """Serves `pull` frames."""

    def __init__(
        self, views: Views, reader: Reader, metrics: Metrics, *, page_bytes: int, most_ranges: int
    ) -> None:
        self._views = views
        self._reader = reader
        self._metrics = metrics
        self._page_bytes = page_bytes
        self._most_ranges = most_ranges

    async def pull(self, connection: Connection, frame: Pull) -> Pulled:
        """One page: exactly the next part of what was asked, or an error (I8).

        A range without end is settled at the view's end when it is first asked, and so
        stays whole over its pages.
        """
        asked = deque(await self._ranges(connection, frame))
        runs: list[Run] = []
        room = connection.outlet.page_bytes(self._page_bytes)
        is_slow = room < self._page_bytes
        while asked and room > 0:
            for run in await self._first_runs(asked, connection.encoding):
                conversation, after, up_to = asked.popleft()
                if is_slow and run.size > room:
                    run = await self._part(conversation, run, room, connection.encoding)
                    room = run.size
                # A Raw stands for the list of entries that it is the encoding of.
                runs.append(Run(conversation.id, after, run.data))  # type: ignore[arg-type]
                room -= run.size
                self._metrics.pulled.inc(run.up_to_inclusive - after)
                if run.up_to_inclusive < up_to:
                    asked.appendleft(_Asked(conversation, run.up_to_inclusive, up_to))
                    break
                if room <= 0:
                    break
        left = [(conversation.id, after, up_to) for conversation, after, up_to in asked]
        return Pulled(frame.request, runs, encode_position(_Left(left)) if left else "")

    async def _first_runs(self, asked: Iterable[_Asked], encoding: Encoding) -> list[EncodedRun]:
        """The first run of each of the next ranges, read beside each other.

        What the page has no room for is kept by the reader for the next one.
        """
        return await asyncio.gather(
            *(
                self._reader.encoded(conversation, after, up_to, encoding)
                for conversation, after, up_to in islice(asked, _RANGES_AT_ONCE)
            )
        )

    async def _part(
        self, conversation: Conversation, run: EncodedRun, room: int, encoding: Encoding
    ) -> EncodedRun:
        """As many of a run's entries as are about so long, at least one."""
        count = (run.up_to_inclusive - run.after) * room // run.size
        up_to = Seq(run.after + max(1, count))
        return await self._reader.encoded(conversation, run.after, up_to, encoding)

    async def _ranges(self, connection: Connection, frame: Pull) -> list[_Asked]:
        """What is asked for and not empty."""
        if not frame.next:
            return await self._settle(connection, frame.ranges, first_page=True)
        try:
            ranges = _decode(position_bytes(frame.next)).ranges
        except msgspec.MsgspecError:
            raise InvalidRange("`next` is not what an earlier answer gave.") from None
        for id_, _, _ in ranges[: self._most_ranges]:
            check_conversation_id(id_)
        return await self._settle(
            connection,
            [Range(id_, after, up_to) for id_, after, up_to in ranges],
            first_page=False,
        )

    async def _settle(
        self, connection: Connection, ranges: Sequence[Range], *, first_page: bool
    ) -> list[_Asked]:
        if not 0 < len(ranges) <= self._most_ranges:
            raise InvalidRange(f"A pull asks for 1 to {self._most_ranges} ranges.")
        access = await self._views.of_many(connection.user, [r.conversation for r in ranges])
        settled: list[_Asked] = []
        for r in ranges:
            seen = access[r.conversation]
            after, up_to = clip(seen.view, r.after, r.up_to)
            if after >= up_to:
                continue
            settled.append(_Asked(seen.conversation, after, up_to))
            if first_page:
                depth = self._metrics.pull_depth.labels(seen.conversation.kind)
                depth.observe(seen.conversation.head - after)
        return settled
