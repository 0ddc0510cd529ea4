"""Turns a user's operations into drafts: form and limits are checked here, rights later."""

from collections.abc import Callable, Collection
from typing import assert_never

from trunkline.core import ids
from trunkline.core.envelope import kek_of
from trunkline.errors import BodyEmpty, BodyTooLarge, InvalidInput, NotMember, TooManyUsers
from trunkline.model import (
    ConversationId,
    Draft,
    FreshKey,
    Kind,
    UserId,
    place_of,
)
from trunkline.ports.clock import Clock
from trunkline.ports.sealer import Sealer
from trunkline.services.charges import Rates
from trunkline.services.settings import ServiceSettings
from trunkline.wire.frames import Add, Create, Leave, Remove, Rename, Send

Operation = Send | Create | Add | Remove | Leave | Rename
_CONTENT_TYPE_BYTES = 128
_PEERS_REMEMBERED = 4_096


class FreshKeys:
    """Makes key material for conversations that a draft may create."""

    def __init__(self, sealer: Sealer, random_bits: Callable[[int], int]) -> None:
        self._sealer = sealer
        self._random_bits = random_bits

    def stale(self, fresh: FreshKey) -> bool:
        """Whether it was wrapped before the KEK changed: an old KEK may be retired any time."""
        return kek_of(fresh.wrapped_key) != self._sealer.kek_id

    def make(self, conversation: ConversationId) -> FreshKey:
        """A key on the conversation's shard, and a wrapped data key."""
        key = ids.conversation_key(ids.shard_hash(conversation), self._random_bits(54))
        return FreshKey(key, self._sealer.new_wrapped_key(place_of(key, conversation)))


class Drafting:
    """The drafts of one user's connection."""

    __slots__ = (
        "_bucket", "_clock", "_fresh_keys", "_last", "_part", "_peers", "_rates", "_settings",
        "_user",
    )  # fmt: skip

    def __init__(
        self,
        user: UserId,
        rates: Rates,
        fresh_keys: FreshKeys,
        clock: Clock,
        settings: ServiceSettings,
    ) -> None:
        self._user = user
        self._part = ids.part_of_single(user)
        self._last: ConversationId | None = None
        self._rates = rates
        self._bucket = rates.operations.of(user)
        self._fresh_keys = fresh_keys
        self._clock = clock
        self._settings = settings
        self._peers: dict[UserId, tuple[ConversationId, tuple[UserId, UserId], FreshKey]] = {}

    def draft(self, operation: Operation) -> Draft:
        """The draft of an operation; raises `InvalidInput`, `NotMember` or `RateLimited`."""
        self._bucket.take(self._clock.monotonic())
        if isinstance(operation, Send):
            return self._message(operation)
        return self._membership(operation)

    def _message(self, send: Send) -> Draft:
        self._check_body(send.body)
        if not 0 < len(send.content_type.encode()) <= _CONTENT_TYPE_BYTES:
            raise InvalidInput(f"A content type has 1 to {_CONTENT_TYPE_BYTES} bytes.")
        now_ms = self._clock.now_ms()
        if send.to is not None:
            if send.conversation is not None:
                raise InvalidInput("`send` names a conversation or a user, not both.")
            self._check_name(send.name)
            conversation, users, fresh = self._peer(send.to)
            return Draft(
                conversation, self._user, send.id, Kind.MESSAGE, now_ms, send.body,
                send.content_type, send.refers_to, users, send.name, fresh,
            )  # fmt: skip
        if send.conversation is None:
            raise InvalidInput("`send` names a conversation or a user.")
        if send.conversation != self._last:  # few change it from one message to the next
            self._check_own(send.conversation)
            self._last = send.conversation
        return Draft(
            send.conversation, self._user, send.id, Kind.MESSAGE, now_ms, send.body,
            send.content_type, send.refers_to,
        )  # fmt: skip

    def _membership(self, operation: Create | Add | Remove | Leave | Rename) -> Draft:
        users: Collection[UserId] = ()
        name: str | None = None
        fresh: FreshKey | None = None
        match operation:
            case Create():
                ids.check_group_id(operation.conversation)
                kind, users, name = Kind.CREATED, operation.users, operation.name
                fresh = self._fresh_keys.make(operation.conversation)
            case Add():
                kind, users = Kind.JOINED, operation.users
            case Remove():
                kind, users = Kind.LEFT, operation.users
            case Leave():
                kind, users = Kind.LEFT, (self._user,)
            case Rename():
                kind, name = Kind.RENAMED, operation.name
            case _:
                assert_never(operation)
        self._check_own(operation.conversation)
        self._check_users(users)
        self._check_name(name)
        self._charge(kind, users)
        return Draft(
            operation.conversation, self._user, operation.id, kind, self._clock.now_ms(),
            users=tuple(users), name=name, fresh=fresh,
        )  # fmt: skip

    def _peer(self, other: UserId) -> tuple[ConversationId, tuple[UserId, UserId], FreshKey]:
        """Id, members and key material of the single conversation with another user.

        The material is made once a peer: if the conversation exists it is not used, and
        while it does not, using the same twice is harmless.
        """
        peer = self._peers.get(other)
        if peer is None or self._fresh_keys.stale(peer[2]):
            conversation = ids.single_conversation_id(self._user, other)
            peer = (conversation, (self._user, other), self._fresh_keys.make(conversation))
            if len(self._peers) >= _PEERS_REMEMBERED:
                self._peers.clear()
            self._peers[other] = peer
        return peer

    def _charge(self, kind: Kind, users: Collection[UserId]) -> None:
        begins = kind is Kind.CREATED
        if users or begins:
            self._rates.naming(self._user, users, begins=begins)

    def _check_own(self, conversation: ConversationId) -> None:
        """Refuses other people's single conversations before anything is looked up (I13)."""
        if not ids.may_be_of(conversation, self._part):
            raise NotMember

    def _check_body(self, body: str) -> None:
        most = self._settings.body_bytes
        if not body:
            raise BodyEmpty
        if len(body) > most or (len(body) * 4 > most and len(body.encode()) > most):
            raise BodyTooLarge(f"A body has at most {most} bytes.")

    def _check_users(self, users: Collection[UserId]) -> None:
        most = self._settings.users_per_operation
        if len(users) > most:
            raise TooManyUsers(f"One operation names at most {most} users.")

    def _check_name(self, name: str | None) -> None:
        if name is not None and len(name.encode()) > self._settings.name_bytes:
            raise InvalidInput(f"A name has at most {self._settings.name_bytes} bytes.")
