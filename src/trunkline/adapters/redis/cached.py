"""The cached tier in Redis: newest entries, read offsets, watching workers (DESIGN section 5).

State counts only under the identity of the server that it was written to: a wiped, restored or
promoted server is not believed.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Final

from trunkline.adapters.redis.entries import Unreadable, decode, digest_before, encode
from trunkline.adapters.redis.keys import Keys
from trunkline.adapters.redis.link import pack
from trunkline.adapters.redis.registrations import Registrations
from trunkline.adapters.redis.scripts import SHAS
from trunkline.adapters.redis.servers import Call, ServerFull, Servers
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.unanswered import Unanswered
from trunkline.core import digest as digests
from trunkline.core.appending import ConversationWrite
from trunkline.errors import TierUnavailable
from trunkline.model import (
    NO_SEQ,
    ConversationKey,
    EndpointId,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
    WorkerId,
)
from trunkline.ports.readings import Reading

log = logging.getLogger(__name__)

_APPEND: Final = SHAS["append"]
_APPEND_WHEN_FULL: Final = SHAS["append_when_full"]
_READ: Final = SHAS["read"]
_CONFIRM: Final = SHAS["confirm"]
_RAISE: Final = SHAS["raise_offsets"]
_KEY_BYTES: Final = 8


class EvictionCause(StrEnum):
    """Why an entry left the tier, as far as this worker was told.

    What Redis itself expires (idle) it tells nobody.
    """

    READ = "read"
    """Every present member holds it."""
    LENGTH = "length"
    """Its conversation grew past its bound."""
    GAP = "gap"
    """A later entry came without those between."""
    SPACE = "space"
    """Redis had no memory left when its conversation grew."""


class RedisCachedTier:
    """A `ports.cached.CachedTier`.

    Attributes:
        evicted: entries that calls of this worker evicted so far, by cause.
    """

    def __init__(
        self,
        servers: Servers,
        worker: WorkerId,
        keys: Keys,
        watched: Registrations[ConversationKey],
        unanswered: Unanswered,
        settings: Settings,
    ) -> None:
        self._servers = servers
        self._worker = worker
        self._keys = keys
        self._watched = watched
        self._unanswered = unanswered
        self._answer_seconds = settings.answer_seconds
        self._read_seconds = settings.read_seconds
        self._kept = settings.conversation_entries
        self._cut = self._kept + self._kept // 8
        self._idle_ms = round(settings.idle_seconds * 1000)
        self.evicted: dict[EvictionCause, int] = dict.fromkeys(EvictionCause, 0)

    def readings(self) -> list[Reading]:
        """What was evicted, by cause."""
        return [
            Reading(
                "trunkline_cached_evicted_entries", cause, partial(self.evicted.__getitem__, cause)
            )
            for cause in EvictionCause
        ]

    async def append(
        self, writes: Sequence[ConversationWrite], stamp: bytes = b""
    ) -> Mapping[ConversationKey, Collection[WorkerId]]:
        """Takes over what a batch committed; returns who else watches; see the port.

        A server without memory takes over the heads, and lets go of the entries before them:
        heads are believed, entries need not be there.
        """
        calls = [self._append_call(write, stamp) for write in writes]
        watchers: dict[ConversationKey, Collection[WorkerId]] = {}
        cause = EvictionCause.GAP
        try:
            replies = await self._servers.call(calls, self._answer_seconds)
        except ServerFull as error:
            self._unanswered.note("append", error)
            cause = EvictionCause.SPACE
            calls = [self._append_call(write, stamp, keep=False) for write in writes]
            replies = await self._servers.call(calls, self._answer_seconds)
        for write, reply in zip(writes, replies, strict=True):
            if reply is None:
                continue
            dropped, cut, *workers = reply
            self.evicted[cause] += dropped
            self.evicted[EvictionCause.LENGTH] += cut
            if workers:
                watchers[write.conversation.key] = [WorkerId(name.decode()) for name in workers]
        return watchers

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of the range that is cached: contiguous, up to its end; may be empty."""
        names = self._keys.conversation(key)
        server = self._servers.of(names.tag)
        command = pack(
            (
                b"EVALSHA",
                _READ,
                2,
                names.entries,
                names.row,
                server.identity,
                after,
                up_to_inclusive,
            )
        )
        try:
            (reply,) = await self._servers.call([(server, command)], self._read_seconds)
        except TierUnavailable as error:
            self._unanswered.note("read", error)
            return ()
        if reply is None:
            return ()
        first, digest, found = reply
        if not digest:
            digest = found[0][: digests.DIGEST_BYTES]
            del found[0]
        try:
            return decode(found, first, digest)
        except Unreadable as error:
            log.warning("an entry in Redis cannot be read: %s", error)
            return ()

    async def confirm(
        self, moves: Sequence[OffsetMove], members: Mapping[ConversationKey, int]
    ) -> None:
        """Raises read offsets and evicts what all present members hold.

        A conversation that `members` does not name keeps its entries for now.
        """
        endpoints: dict[tuple[UserId, EndpointId], dict[ConversationKey, Seq]] = {}
        conversations: dict[ConversationKey, list[bytes | str | int]] = {}
        for move in moves:
            offsets = endpoints.setdefault((move.user, move.endpoint), {})
            offsets[move.key] = max(move.seq, offsets.get(move.key, NO_SEQ))
            conversations.setdefault(move.key, []).extend((move.user, move.seq))
        calls = [
            self._confirm_call(key, members.get(key, -1), pairs)
            for key, pairs in conversations.items()
        ]
        calls += [
            self._raise_call(user, endpoint, offsets.items(), whole=False)
            for (user, endpoint), offsets in endpoints.items()
        ]
        try:
            replies = await self._servers.call(calls, self._read_seconds)
        except TierUnavailable as error:
            self._unanswered.note("confirm", error)
        else:
            self.evicted[EvictionCause.READ] += sum(replies[: len(conversations)])

    async def offsets(
        self, user: UserId, endpoint: EndpointId
    ) -> Mapping[ConversationKey, Seq] | None:
        """The endpoint's read offsets, or None if they are not cached."""
        tag, name = self._keys.endpoint(user, endpoint)
        server = self._servers.of(tag)
        calls = [
            (server, pack((b"HGETALL", name))),
            (server, pack((b"PEXPIRE", name, self._idle_ms))),
        ]
        try:
            fields, _ = await self._servers.call(calls, self._read_seconds)
        except TierUnavailable as error:
            self._unanswered.note("offsets", error)
            return None
        held = dict(zip(fields[::2], fields[1::2], strict=True))
        if held.pop(b"run", b"") != server.identity or not held.pop(b"whole", b""):
            return None
        return {ConversationKey(int.from_bytes(key)): Seq(int(seq)) for key, seq in held.items()}

    async def load_offsets(
        self, user: UserId, endpoint: EndpointId, offsets: Mapping[ConversationKey, Seq]
    ) -> None:
        """Fills in an endpoint's offsets; what it confirmed meanwhile stays where higher."""
        call = self._raise_call(user, endpoint, offsets.items(), whole=True)
        try:
            await self._servers.call([call], self._read_seconds)
        except TierUnavailable as error:
            self._unanswered.note("load_offsets", error)

    async def evict_idle(self) -> int:
        """Redis drops what is idle by itself and does not say how much: always 0."""
        return 0

    async def watch(self, keys: Collection[ConversationKey]) -> None:
        """This worker is pushed these conversations; if Redis is away it is entered later."""
        try:
            await self._watched.add(keys)
        except TierUnavailable as error:
            self._unanswered.note("watch", error)

    async def unwatch(
        self, keys: Collection[ConversationKey], worker: WorkerId | None = None
    ) -> None:
        """This worker, or a dead one, is no longer pushed these conversations."""
        try:
            await self._watched.remove(keys, worker)
        except TierUnavailable as error:
            self._unanswered.note("unwatch", error)

    def _append_call(self, write: ConversationWrite, stamp: bytes, *, keep: bool = True) -> Call:
        row, entries = write.conversation, write.entries if keep else ()
        names = self._keys.conversation(row.key)
        server = self._servers.of(names.tag)
        first, before = (entries[0].seq, digest_before(entries[0])) if entries else (0, b"")
        left = [user for user, member in write.members.items() if member.left_at]
        command: tuple[str | int | bytes, ...] = (
            b"EVALSHA", _APPEND if keep else _APPEND_WHEN_FULL, 4,
            names.entries, names.row, names.offsets, names.watchers,
            server.identity, self._worker, row.head, row.countable, digests.to_bytes(row.digest),
            row.membership_version, first, before, self._kept, self._cut, self._idle_ms,
            stamp, len(left), *left, *map(encode, entries),
        )  # fmt: skip
        return server, pack(command)

    def _confirm_call(
        self, key: ConversationKey, present: int, pairs: Sequence[bytes | str | int]
    ) -> Call:
        names = self._keys.conversation(key)
        server = self._servers.of(names.tag)
        command = (
            b"EVALSHA", _CONFIRM, 3, names.entries, names.row, names.offsets, server.identity,
            present, self._idle_ms, *pairs,
        )  # fmt: skip
        return server, pack(command)

    def _raise_call(
        self,
        user: UserId,
        endpoint: EndpointId,
        offsets: Iterable[tuple[ConversationKey, Seq]],
        *,
        whole: bool,
    ) -> Call:
        tag, name = self._keys.endpoint(user, endpoint)
        server = self._servers.of(tag)
        pairs: list[bytes | int] = []
        for key, seq in offsets:
            pairs += (key.to_bytes(_KEY_BYTES), seq)
        command = (b"EVALSHA", _RAISE, 1, name, server.identity, self._idle_ms, int(whole), *pairs)
        return server, pack(command)
