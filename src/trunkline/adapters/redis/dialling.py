"""Connects to a Redis server: socket, TLS, login, database, and who the server is."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

from trunkline.adapters.redis.link import Link, LinkLost, Reply, ReplyError, pack
from trunkline.adapters.redis.refusals import Refusal, Refused, refusal_in
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import ConfigInvalid, TierUnavailable
from trunkline.model import WorkerId
from trunkline.ports.tls import why_refused

_OLDEST_MAJOR = 7
"""The first with sharded pub/sub, ZADD GT and PEXPIRE NX together."""
WHO: Final = [pack((b"INFO", b"server")), pack((b"INFO", b"replication"))]
"""What `Server.parse` reads the answers to."""

AnyLink = TypeVar("AnyLink", bound=Link)


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From `host:port`; an IPv6 address may stand in brackets. Raises `ConfigInvalid`."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigInvalid(f"`{text}` is not `host:port` of a Redis server.")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


class Server(NamedTuple):
    """Who a server is, by what it says of itself.

    Attributes:
        run_id: another after a restart.
        history: which sequence of writes its data set comes from; another after it was
            promoted, or followed another server meanwhile.
        is_replica: whether it follows another server.
    """

    run_id: bytes
    history: bytes
    is_replica: bool

    @classmethod
    def parse(cls, address: Address, answers: Sequence[Reply]) -> "Server":
        """From the answers to `WHO`; raises `Refused` if the server is too old."""
        lines = b"".join(answers).splitlines()
        facts = dict(line.split(b":", 1) for line in lines if b":" in line)
        version = facts[b"redis_version"].decode()
        if int(version.split(".")[0]) < _OLDEST_MAJOR:
            raise Refused(
                f"Redis at {address} is version {version}: {_OLDEST_MAJOR} or newer is needed.",
                Refusal.OTHER,
            )
        replica = facts.get(b"role", b"master") != b"master"
        return cls(facts[b"run_id"], facts.get(b"master_replid", b""), replica)

    def check_primary(self, address: Address) -> None:
        """Raises `Refused` if it is a replica, even one that lets itself be written to."""
        if self.is_replica:
            raise Refused(f"Redis at {address} is a replica.", Refusal.READONLY)


class Dialler:
    """Opens links that are logged in; reads the certificates once."""

    def __init__(self, settings: Settings, worker: WorkerId) -> None:
        self._settings = settings
        name = quote(f"{settings.prefix}-{worker}", safe="")
        self._greeting: list[bytes] = []
        if settings.password:
            login = (settings.user, settings.password) if settings.user else (settings.password,)
            self._greeting.append(pack(("AUTH", *login)))
        self._greeting.append(pack(("CLIENT", "SETNAME", name)))  # for whoever looks there
        if settings.database:
            self._greeting.append(pack(("SELECT", settings.database)))
        self._tls = settings.tls_context()
        self._worker = worker
        self._named = count()

    def unique_name(self) -> str:
        """One that nobody else gives or gave."""
        return f"{self._worker}-{next(self._named)}"

    async def dial(
        self, address: Address, make: Callable[[], AnyLink], more: Sequence[bytes] = ()
    ) -> tuple[AnyLink, Server, list[Reply]]:
        """Connects, looking the name up anew, logs in, sends `more` as well.

        Returns the link, who the server is, and the answers to `more`. Raises
        `TierUnavailable` with the reason, `Refused` where the server gave it.
        """
        link: AnyLink | None = None
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                _, link = await asyncio.get_running_loop().create_connection(
                    make, address.host, address.port, ssl=self._tls
                )
                replies = await link.request([*self._greeting, *WHO, *more])
            start, end = len(self._greeting), len(self._greeting) + len(WHO)
            _check(address, replies[:end])
            server = Server.parse(address, replies[start:end])
            _check(address, replies[end:])
            return link, server, replies[end:]
        except BaseException as error:
            if link is not None:
                await link.close()
            match error:
                case ssl.SSLCertVerificationError():
                    what = f"Redis at {address} cannot be reached: {why_refused(error)}."
                    raise Refused(what, Refusal.OTHER) from None
                case TimeoutError():
                    reason = "no answer"
                case LinkLost():
                    reason = "it closed the connection"
                case OSError():
                    reason = why_refused(error)
                case _:
                    raise
            raise TierUnavailable(f"Redis at {address} cannot be reached: {reason}.") from None


def _check(address: Address, replies: Sequence[Reply]) -> None:
    """Raises `Refused` with the first error among the replies."""
    for reply in replies:
        if isinstance(reply, ReplyError):
            refusal = refusal_in(str(reply)) or Refusal.OTHER
            raise Refused(f"Redis at {address} refuses: {reply}", refusal)
