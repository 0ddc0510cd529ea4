"""Answers pulls: many conversations' ranges in pages bounded by bytes (DESIGN section 4)."""

import base64
import binascii
from collections.abc import Sequence

import msgspec

from trunkline.core.views import clip
from trunkline.errors import InvalidRange
from trunkline.model import ConversationId, Seq
from trunkline.services.access import Views
from trunkline.services.metrics import Metrics
from trunkline.services.reader import Reader
from trunkline.services.registry import Connection
from trunkline.wire.frames import Pull, Pulled, Range, Run


class _Left(msgspec.Struct, array_like=True, frozen=True):
    """What of a pull is still to come."""

    ranges: list[tuple[ConversationId, Seq, Seq]]


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
        asked = await self._ranges(connection, frame)
        runs: list[Run] = []
        room = self._page_bytes
        position = 0
        while position < len(asked) and room > 0:
            conversation_id, after, up_to = asked[position]
            if after >= up_to:
                position += 1
                continue
            access = await self._views.of(connection.user, conversation_id)
            clip(access.view, after, up_to)
            run = await self._reader.encoded(access.conversation, after, up_to, connection.encoding)
            # A Raw stands for the list of entries that it is the encoding of.
            runs.append(Run(conversation_id, after, run.data))  # type: ignore[arg-type]
            room -= run.size
            self._metrics.pulled.inc(run.up_to_inclusive - after)
            asked[position] = (conversation_id, run.up_to_inclusive, up_to)
        left = [r for r in asked[position:] if r[1] < r[2]]
        return Pulled(frame.request, runs, encode_position(_Left(left)) if left else "")

    async def _ranges(
        self, connection: Connection, frame: Pull
    ) -> list[tuple[ConversationId, Seq, Seq]]:
        if not frame.next:
            return await self._settle(connection, frame.ranges, first_page=True)
        try:
            ranges = _decode(position_bytes(frame.next)).ranges
        except msgspec.MsgspecError:
            raise InvalidRange("`next` is not what an earlier answer gave.") from None
        return await self._settle(
            connection,
            [Range(id_, after, up_to) for id_, after, up_to in ranges],
            first_page=False,
        )

    async def _settle(
        self, connection: Connection, ranges: Sequence[Range], *, first_page: bool
    ) -> list[tuple[ConversationId, Seq, Seq]]:
        if not 0 < len(ranges) <= self._most_ranges:
            raise InvalidRange(f"A pull asks for 1 to {self._most_ranges} ranges.")
        access = await self._views.of_many(connection.user, [r.conversation for r in ranges])
        settled: list[tuple[ConversationId, Seq, Seq]] = []
        for r in ranges:
            seen = access[r.conversation]
            after, up_to = clip(seen.view, r.after, r.up_to)
            settled.append((r.conversation, after, up_to))
            if first_page and after < up_to:
                depth = self._metrics.pull_depth.labels(seen.conversation.kind)
                depth.observe(seen.conversation.head - after)
        return settled
