"""Who is online: connections by user, and which of them watch a conversation."""

from collections.abc import Iterable

from trunkline.errors import TrunklineError
from trunkline.model import ConversationKey, EndpointId, UserId
from trunkline.ports.outlet import Outlet
from trunkline.wire.close import Close
from trunkline.wire.frames import Ack, Acked, Error, Goodbye, ServerFrame


class Connection:
    """One endpoint's open connection, after its `hello`."""

    __slots__ = (
        "acks", "encode", "encoding", "endpoint", "name", "open", "outlet", "push",
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
        self.acks: list[Ack] = []
        self.watched: set[ConversationKey] = set()
        self.unwatched_while_loading: set[ConversationKey] | None = set()

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


class Registry:
    """Connections of this process, oldest first: the order of writes is always the same."""

    def __init__(self) -> None:
        self._of_user: dict[UserId, dict[Connection, None]] = {}
        self._watchers: dict[ConversationKey, dict[Connection, None]] = {}
        self.count = 0

    def attach(self, connection: Connection) -> None:
        """From now on membership changes reach the connection."""
        self._of_user.setdefault(connection.user, {})[connection] = None
        self.count += 1

    def detach(self, connection: Connection) -> None:
        """Forgets the connection; a second time does nothing."""
        connection.open = False
        connections = self._of_user.get(connection.user)
        if connections is None or connection not in connections:
            return
        self.count -= 1
        del connections[connection]
        if not connections:
            del self._of_user[connection.user]
        for key in tuple(connection.watched):
            self.unwatch(connection, key)

    def of_user(self, user: UserId) -> Iterable[Connection]:
        """The user's connections."""
        return self._of_user.get(user, ())

    def all(self) -> list[Connection]:
        """Every connection."""
        return [c for connections in self._of_user.values() for c in connections]

    def watchers(self, key: ConversationKey) -> Iterable[Connection]:
        """The connections that are pushed this conversation's entries."""
        return self._watchers.get(key, ())

    def watch(self, connection: Connection, key: ConversationKey) -> None:
        """Pushes of the conversation go to the connection from now on."""
        if connection.push and connection.open:
            self._watchers.setdefault(key, {})[connection] = None
            connection.watched.add(key)

    def watch_loaded(self, connection: Connection, keys: Iterable[ConversationKey]) -> None:
        """Watches what the store listed, but for what the user was removed from meanwhile."""
        removed = connection.unwatched_while_loading or ()
        connection.unwatched_while_loading = None
        for key in keys:
            if key not in removed:
                self.watch(connection, key)

    def unwatch(self, connection: Connection, key: ConversationKey) -> None:
        """No push of the conversation goes to the connection any more (I13)."""
        if connection.unwatched_while_loading is not None:
            connection.unwatched_while_loading.add(key)
        connection.watched.discard(key)
        watchers = self._watchers.get(key)
        if watchers is not None:
            watchers.pop(connection, None)
            if not watchers:
                del self._watchers[key]

    def close_all(self, close: Close, error: TrunklineError) -> None:
        """Tells every connection why, and whether to come back, then closes it."""
        goodbye = Goodbye(error.code, error.detail, close.reconnect)
        for connection in self.all():
            connection.write(goodbye)
            connection.outlet.close(close, error.code)
