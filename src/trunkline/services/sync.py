"""Sync by comparison: heads against an endpoint's read offsets (DESIGN section 4)."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from trunkline.core.digest import move_vector, to_hex, vector_digest
from trunkline.core.envelope import name_associated_data
from trunkline.core.views import View, check_position, view_of
from trunkline.errors import InvalidRange
from trunkline.model import (
    NO_SEQ,
    Conversation,
    ConversationId,
    ConversationKey,
    Digest,
    EndpointId,
    Member,
    OffsetMove,
    Seq,
    UserId,
)
from trunkline.ports.cached import CachedTier
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.services.access import Access, Views
from trunkline.services.comparing import Asked, Comparison
from trunkline.services.durable_offsets import DurableOffsets
from trunkline.services.metrics import Metrics
from trunkline.services.pulls import encode_position, position_bytes
from trunkline.services.registry import Connection
from trunkline.wire.frames import Changed, Confirm, Sync, Synced


class _Position(msgspec.Struct, array_like=True, frozen=True):
    """Where a long answer goes on: behind this key, to this cursor."""

    cursor: int
    key: int


class _Vector:
    """An endpoint's read offsets by conversation, with the digest over them."""

    __slots__ = ("digest", "offsets")

    def __init__(self, offsets: dict[ConversationId, Seq]) -> None:
        self.offsets = offsets
        self.digest: Digest = vector_digest(offsets)

    def move(self, conversation: ConversationId, seq: Seq) -> None:
        old = self.offsets.get(conversation, NO_SEQ)
        self.offsets[conversation] = seq
        self.digest = move_vector(self.digest, conversation, old, seq)


class _Endpoint(NamedTuple):
    user: UserId
    endpoint: EndpointId


_decode_position = msgspec.msgpack.Decoder(_Position).decode


def _position(frame: Sync) -> _Position:
    try:
        return _decode_position(position_bytes(frame.next))
    except msgspec.MsgspecError:
        raise InvalidRange("`next` is not what an earlier answer gave.") from None


class Syncs:
    """Serves `sync` and `confirm` frames."""

    def __init__(
        self,
        hot: HotStore,
        cached: CachedTier,
        comparison: Comparison,
        sealer: Sealer,
        views: Views,
        durable: DurableOffsets,
        metrics: Metrics,
        *,
        page_conversations: int,
        most_vectors: int,
    ) -> None:
        self._hot = hot
        self._cached = cached
        self._comparison = comparison
        self._sealer = sealer
        self._views = views
        self._durable = durable
        self._metrics = metrics
        self._page_conversations = page_conversations
        self._vectors: OrderedDict[_Endpoint, _Vector] = OrderedDict()
        self._most_vectors = most_vectors

    async def sync(self, connection: Connection, frame: Sync) -> Synced:
        """One page of what changed, or the wish for the endpoint's vector."""
        vector = await self._vector(connection)
        if frame.vector is not None:
            vector = await self._take_vector(connection, frame.vector, vector)
        elif not frame.next and frame.vector_digest != to_hex(vector.digest):
            return Synced(frame.request, vector_wanted=True)
        start = _position(frame) if frame.next else None
        compared = await self._comparison.changed(
            connection.user,
            Asked(
                vector.offsets, frame.cursor, start.key if start else -1, self._page_conversations
            ),
        )
        cursor = start.cursor if start else compared.version or frame.cursor
        self._metrics.syncs.inc()
        return Synced(
            frame.request,
            cursor,
            [self._describe(*row) for row in compared.rows],
            encode_position(_Position(cursor, compared.rows[-1][0].key)) if compared.more else "",
        )

    async def confirm(self, connection: Connection, frame: Confirm) -> None:
        """Raises the endpoint's read offsets; raises `NotMember`, `AheadOfHead` (I9)."""
        access = await self._views.of_many(connection.user, frame.offsets.keys())
        for conversation, seq in frame.offsets.items():
            check_position(access[conversation].view, seq)
        vector = await self._vector(connection)
        await self._raise(connection, access, frame.offsets, vector)

    def _describe(self, conversation: Conversation, member: Member) -> Changed:
        view = view_of(conversation, member)
        if conversation.shredded:
            return Changed(
                conversation.id, conversation.kind, view.last, view.first, to_hex(view.digest),
                digest_key="", marker=view.marker, left=view.left, shredded=True,
            )  # fmt: skip
        cipher = self._sealer.cipher(conversation.wrapped_key)
        return Changed(
            conversation.id,
            conversation.kind,
            view.last,
            view.first,
            to_hex(view.digest),
            cipher.digest_key.hex(),
            view.unread,
            view.marker,
            self._name(conversation, view),
            view.left,
        )

    def _name(self, conversation: Conversation, view: View) -> str | None:
        if not view.sealed_name:
            return None
        cipher = self._sealer.cipher(conversation.wrapped_key)
        return cipher.open(view.sealed_name, name_associated_data(conversation.id)).decode()

    async def _vector(self, connection: Connection) -> _Vector:
        key = _Endpoint(connection.user, connection.endpoint)
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
            return vector
        offsets = await self._cached.offsets(connection.user, connection.endpoint)
        if offsets is None:
            offsets = await self._hot.offsets(connection.user, connection.endpoint)
            await self._cached.load_offsets(connection.user, connection.endpoint, offsets)
        listing = await self._comparison.listing(connection.user)
        if key in self._vectors:  # another request of this endpoint was faster
            return self._vectors[key]
        vector = _Vector(
            {
                line.conversation: offsets[line.key]
                for line in listing.lines.values()
                if offsets.get(line.key, NO_SEQ)
            }
        )
        self._vectors[key] = vector
        if len(self._vectors) > self._most_vectors:
            self._vectors.popitem(last=False)
        return vector

    async def _take_vector(
        self, connection: Connection, told: Mapping[ConversationId, Seq], vector: _Vector
    ) -> _Vector:
        """What the endpoint says it holds counts for this answer; offsets only rise (I9)."""
        access = await self._views.known(connection.user, told.keys())
        held = {
            conversation: min(seq, access[conversation].view.last)
            for conversation, seq in told.items()
            if conversation in access and seq
        }
        await self._raise(connection, access, held, vector)
        return _Vector(held)

    async def _raise(
        self,
        connection: Connection,
        access: Mapping[ConversationId, Access],
        offsets: Mapping[ConversationId, Seq],
        vector: _Vector,
    ) -> None:
        moves: list[OffsetMove] = []
        members: dict[ConversationKey, int] = {}
        for conversation, seq in offsets.items():
            if seq <= vector.offsets.get(conversation, NO_SEQ):
                continue
            row = access[conversation].conversation
            moves.append(OffsetMove(row.key, connection.user, connection.endpoint, seq))
            members[row.key] = row.member_count
            vector.move(conversation, seq)
        if moves:
            await self._cached.confirm(moves, members)
            self._durable.add(moves)
