"""Which server a key is on: here, the one there is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from trunkline.adapters.redis.connection import Connection
from trunkline.adapters.redis.link import Reply, ReplyError
from trunkline.errors import TierUnavailable

Call = tuple[Connection, bytes]
"""A packed command and the server that it goes to."""


class ServerFull(TierUnavailable):
    """The server has no memory for what it was to keep; what takes none it does."""


class Servers(Protocol):
    """One server, or the masters of a cluster."""

    @property
    def identity(self) -> bytes:
        """Names who holds the keys, see `Connection.identity`. Empty at first."""
        ...

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """The servers' clocks in seconds, each as of its last answer, by their identities."""
        ...

    def of(self, tag: bytes) -> Connection:
        """The server of all keys and channels with this hash tag."""
        ...

    async def call(self, calls: Sequence[Call], seconds: float) -> list[Reply]:
        """One reply for each command, in their order.

        Raises `TierUnavailable` if any has none or an error: then any of them may have been
        carried out or not.
        """
        ...

    async def call_tagged(
        self, tagged: Sequence[tuple[bytes, bytes]], seconds: float
    ) -> list[Reply]:
        """The same for packed commands with the hash tags of their keys before them."""
        ...

    async def open(self, on_connected: Callable[[], None]) -> None:
        """Connects; raises `TierUnavailable`. Every connect calls `on_connected`."""
        ...

    async def run(self) -> None:
        """Keeps connected until cancelled."""
        ...

    def away(self) -> int:
        """How many servers are not asked now."""
        ...

    def look_again(self) -> None:
        """Something was not where it was thought to be."""
        ...

    async def close(self) -> None:
        """Closes the sockets of what is no longer run."""
        ...


class SingleServer:
    """A `Servers` of one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def identity(self) -> bytes:
        """That of the one."""
        return self._connection.identity

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """The clock of the one."""
        server = self._connection
        return {server.identity: server.seconds} if server.identity else {}

    def of(self, tag: bytes) -> Connection:
        """The one."""
        return self._connection

    async def call(self, calls: Sequence[Call], seconds: float) -> list[Reply]:
        """One reply for each command, in their order; raises `TierUnavailable`."""
        return await self._answers([command for _, command in calls], seconds)

    async def call_tagged(
        self, tagged: Sequence[tuple[bytes, bytes]], seconds: float
    ) -> list[Reply]:
        """The same: whatever the tags, there is no other."""
        return await self._answers([command for _, command in tagged], seconds)

    async def _answers(self, commands: Sequence[bytes], seconds: float) -> list[Reply]:
        replies = await self._connection.call(commands, seconds)
        if ReplyError in map(type, replies):
            refuse(replies)
        return replies

    async def open(self, on_connected: Callable[[], None]) -> None:
        """Connects; raises `TierUnavailable`."""
        self._connection.on_connected = on_connected
        await self._connection.connect()

    async def run(self) -> None:
        """Keeps connected until cancelled."""
        await self._connection.run()

    def away(self) -> int:
        """How many servers are not asked now."""
        return int(self._connection.away)

    def look_again(self) -> None:
        """It is nowhere else."""

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()


def refuse(replies: Sequence[Reply]) -> None:
    """Raises `TierUnavailable` with the first error among the replies.

    It is `ServerFull` if memory is all that is missing.
    """
    errors = [str(reply) for reply in replies if isinstance(reply, ReplyError)]
    if errors:
        full = all(error.startswith("OOM ") for error in errors)
        raise (ServerFull if full else TierUnavailable)(f"Redis refuses: {errors[0]}")
