"""The heads of many conversations, in one round trip a server."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from trunkline.adapters.redis.keys import Keys
from trunkline.adapters.redis.servers import Servers
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.unanswered import Unanswered
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, Seq

_COMMANDS_KEPT: Final = 65_536
_HEADS_KEPT: Final = 65_536
_STAMPS_KEPT: Final = 64
"""Each database has one."""
_GET: Final = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%s\r\n$2\r\nat\r\n"
"""Packed here: `pack` takes as long for one of these as the server does."""


class RedisHeads:
    """A `ports.cached_heads.CachedHeads`."""

    def __init__(
        self, servers: Servers, keys: Keys, unanswered: Unanswered, settings: Settings
    ) -> None:
        self._servers = servers
        self._keys = keys
        self._command = lru_cache(maxsize=_COMMANDS_KEPT)(self._pack)
        self._unanswered = unanswered
        self._read_seconds = settings.read_seconds
        self._read = lru_cache(maxsize=_STAMPS_KEPT)(_Heads)

    def _pack(self, key: ConversationKey) -> tuple[bytes, bytes]:
        tag, row = self._keys.row(key)
        return tag, _GET % (len(row), row)

    @property
    def server(self) -> bytes:
        """Its identity; of a cluster, one for all its masters."""
        return self._servers.identity

    @property
    def clocks(self) -> Mapping[bytes, float]:
        """The servers', each as of the last answer."""
        return self._servers.clocks

    @property
    def answers(self) -> bool:
        """Whether all servers are connected and none is given a pause."""
        return not self._servers.away()

    async def heads(self, keys: Sequence[ConversationKey], stamp: bytes) -> Sequence[Seq | None]:
        """The heads in the keys' order; None where none stands under this stamp."""
        tagged = list(map(self._command, keys))
        try:
            replies = await self._servers.call_tagged(tagged, self._read_seconds)
        except TierUnavailable as error:
            self._unanswered.note("heads", error)
            return [None] * len(keys)
        read = self._read(stamp)
        if len(read) > _HEADS_KEPT:
            read.clear()
        return list(map(read.__getitem__, replies))


class _Heads(dict[bytes | None, Seq | None]):
    """What replies say under a stamp: most of thousands of heads were read before."""

    def __init__(self, stamp: bytes) -> None:
        super().__init__()
        self._stamp = stamp

    def __missing__(self, reply: bytes | None) -> Seq | None:
        stands = reply is not None and reply.startswith(self._stamp)
        head = Seq(int(reply[len(self._stamp) :])) if reply is not None and stands else None
        self[reply] = head
        return head
