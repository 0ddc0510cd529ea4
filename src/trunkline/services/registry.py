"""Who is online: connections by user, and which of them watch a conversation."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from trunkline.errors import TrunklineError
from trunkline.model import (
    NO_SEQ,
    Conversation,
    ConversationId,
    ConversationKey,
    EndpointId,
    Member,
    Seq,
    UserId,
)
from trunkline.ports.outlet import Outlet
from trunkline.services.pacing import AT_ONCE
from trunkline.wire.close import Close
from trunkline.wire.frames import Ack, Acked, Error, Goodbye, ServerFrame

FOR_EVER: Final = Seq(2**63)


class Connection:
    """One endpoint's open connection, after its `hello`.

    Attributes:
        listed: how many conversations its user had when it was registered, None before.
    """

    __slots__ = (
        "acks", "encode", "encoding", "endpoint", "listed", "name", "open", "outlet", "push",
        "unwatched_while_loading", "user", "watched",
    )  # fmt: skip

    def __init__(
        self, name: str, user: UserId, endpoint: EndpointId, outlet: Outlet, *, push: bool
    ) -> None:
        self.name = name
        self.user = user
        self.endpoint = endpoint
        self.outlet = outlet
        self.encoding = outlet.encoding
        self.encode = outlet.encoding.encode
        self.push = push
        self.open = True
        self.listed: int | None = None
        self.acks: list[Ack] = []
        self.watched: set[ConversationKey] = set()
        self.unwatched_while_loading: dict[ConversationKey, Seq] | None = {}

    def write(self, frame: ServerFrame) -> None:
        """Sends one frame, if the connection is still open."""
        if self.open:
            self.outlet.write(self.encode(frame))

    def refuse(self, frame: Error) -> None:
        """Sends an error; the acks before it go first."""
        self.flush_acks()
        self.write(frame)

    def flush_acks(self) -> None:
        """Sends the acks gathered in this batch as one frame."""
        if self.acks:
            acks, self.acks = self.acks, []
            self.write(Acked(acks))


class Watchers(dict[Connection, Seq]):
    """The connections that watch a conversation, each with the `seq` at which its view begins.

    Where several workers share the tiers, `version` and `reached` say what the list is worth:

    Attributes:
        conversation: the conversation's id.
        version: nobody whom a change of the membership up to this version removed is in it.
        reached: up to here the connections were pushed the entries, or told to ask for them.
    """

    __slots__ = ("conversation", "reached", "version")

    def __init__(self, conversation: ConversationId, version: int, reached: Seq) -> None:
        super().__init__()
        self.conversation = conversation
        self.version = version
        self.reached = reached


class Registry:
    """Connections of this process, oldest first: the order of writes is always the same.

    Attributes:
        count: number of connections.
        departed: users whose last connection went, `deserted`: conversations whose last
            watcher did; whoever unregisters them elsewhere takes them out again. None where
            there is no elsewhere.
        leaves: set while `let_go` has something to do.
    """

    def __init__(self) -> None:
        self._of_user: dict[UserId, dict[Connection, None]] = {}
        self._watchers: dict[ConversationKey, Watchers] = {}
        self._loading: dict[Connection, None] = {}
        self._leaving: deque[Connection] = deque()
        self.leaves = asyncio.Event()
        self.count = 0
        self.departed: dict[UserId, None] | None = None
        self.deserted: dict[ConversationKey, None] | None = None

    def attach(self, connection: Connection) -> None:
        """From now on membership changes reach the connection."""
        self._of_user.setdefault(connection.user, {})[connection] = None
        self._loading[connection] = None
        self.count += 1

    def detach(self, connection: Connection) -> None:
        """Forgets the connection; a second time does nothing."""
        connection.open = False
        connections = self._of_user.get(connection.user)
        if connections is None or connection not in connections:
            return
        self.count -= 1
        self._loading.pop(connection, None)
        del connections[connection]
        if not connections:
            del self._of_user[connection.user]
            if self.departed is not None:
                self.departed[connection.user] = None
        if len(connection.watched) <= AT_ONCE:
            for key in tuple(connection.watched):
                self.unwatch(connection, key)
        else:
            self._leaving.append(connection)
            self.leaves.set()

    def let_go(self) -> Iterator[None]:
        """Takes those who left out of all that they watched; comes back after every few hundred
        conversations.
        """
        self.leaves.clear()
        while self._leaving:
            connection = self._leaving[0]
            for key in tuple(islice(connection.watched, AT_ONCE)):
                self.unwatch(connection, key)
            if not connection.watched:
                self._leaving.popleft()
            yield

    def of_user(self, user: UserId) -> Iterable[Connection]:
        """The user's connections."""
        return self._of_user.get(user, ())

    def all(self) -> list[Connection]:
        """Every connection."""
        return [c for connections in self._of_user.values() for c in connections]

    def watchers(self, key: ConversationKey) -> Iterable[Connection]:
        """The connections that are pushed this conversation's entries."""
        return self._watchers.get(key, ())

    def watched(self, key: ConversationKey) -> Watchers | None:
        """The same, with what is known of the list; None if there are none."""
        return self._watchers.get(key)

    def keys(self) -> list[ConversationKey]:
        """Every conversation that somebody watches."""
        return list(self._watchers)

    def users(self) -> list[UserId]:
        """Every user who has a connection."""
        return list(self._of_user)

    def watch(
        self, connection: Connection, conversation: Conversation, first: Seq = NO_SEQ
    ) -> None:
        """Pushes of the conversation go to the connection from now on.

        `conversation` is the row by which the user is a member, `first` where the view begins.
        """
        if not connection.push or not connection.open:
            return
        key, version = conversation.key, conversation.membership_version
        watchers = self._watchers.get(key)
        if watchers is None:
            watchers = self._watchers[key] = Watchers(conversation.id, version, conversation.head)
        elif version < watchers.version:
            # What was removed since the row was read may just have been let in again.
            watchers.version = version
        watchers[connection] = max(first, watchers.get(connection, NO_SEQ))
        connection.watched.add(key)

    def watch_loaded(
        self, connection: Connection, rows: Iterable[tuple[Conversation, Member]]
    ) -> None:
        """Watches what the store listed, but for what the user was removed from meanwhile.

        The rows may come in portions; `loaded` follows the last.
        """
        removed = connection.unwatched_while_loading or {}
        for conversation, member in rows:
            first = member.visible_from
            if not member.left_at and removed.get(conversation.key, NO_SEQ) < first:
                self.watch(connection, conversation, first)

    def loaded(self, connection: Connection) -> None:
        """All that the store listed is watched."""
        connection.unwatched_while_loading = None
        self._loading.pop(connection, None)

    def unwatch(self, connection: Connection, key: ConversationKey, up_to: Seq = FOR_EVER) -> None:
        """No push of the conversation goes to the connection any more (I13).

        `up_to` is the entry that ended its view; a view that begins behind it stays.
        """
        loading = connection.unwatched_while_loading
        if loading is not None:
            loading[key] = max(up_to, loading.get(key, NO_SEQ))
        watchers = self._watchers.get(key)
        if watchers is None:
            return
        if up_to < watchers.get(connection, NO_SEQ):
            return
        connection.watched.discard(key)
        watchers.pop(connection, None)
        if not watchers:
            del self._watchers[key]
            if self.deserted is not None:
                self.deserted[key] = None

    def let_in(
        self, conversation: Conversation, members: Mapping[UserId, Member]
    ) -> list[Connection]:
        """Lets those watch who are members, and no others; returns the connections for which
        that is news. `members` are at least as new as the row.
        """
        key = conversation.key
        changed: list[Connection] = []
        watchers = self._watchers.get(key)
        for connection in [*(watchers or ()), *self._loading]:
            member = members.get(connection.user)
            if member is None or member.left_at:
                if connection in (watchers or ()):
                    changed.append(connection)
                self.unwatch(connection, key, member.left_at if member else FOR_EVER)
        for user, member in members.items():
            if member.left_at:
                continue
            for connection in self._of_user.get(user, ()):
                if connection.push and key not in connection.watched:
                    changed.append(connection)
                self.watch(connection, conversation, member.visible_from)
        watchers = self._watchers.get(key)
        if watchers is not None:
            watchers.version = conversation.membership_version
        return changed

    def close_all(self, close: Close, error: TrunklineError) -> None:
        """Tells every connection why, and whether to come back, then closes it."""
        goodbye = Goodbye.of(error, reconnect=close.reconnect)
        for connection in self.all():
            connection.write(goodbye)
            connection.outlet.close(close, error.code)
