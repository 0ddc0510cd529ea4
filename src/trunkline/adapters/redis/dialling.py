"""Connects to a Redis server: socket, TLS, login, database, and who the server is."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from trunkline.adapters.redis.link import Link, LinkLost, ReplyError, pack
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import ConfigInvalid, TierUnavailable
from trunkline.model import WorkerId
from trunkline.ports.tls import why_refused

_OLDEST_MAJOR = 7
"""The first with sharded pub/sub, ZADD GT and PEXPIRE NX together."""
_INFO = pack((b"INFO", b"server"))

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

    async def dial(
        self, address: Address, make: Callable[[], AnyLink], more: Sequence[bytes] = ()
    ) -> tuple[AnyLink, bytes]:
        """Connects, logs in, sends `more` as well.

        Returns the link and the run id of the server, both of the moment. Raises
        `TierUnavailable` with the reason.
        """
        link: AnyLink | None = None
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                _, link = await asyncio.get_running_loop().create_connection(
                    make, address.host, address.port, ssl=self._tls
                )
                replies = await link.request([*self._greeting, _INFO, *more])
            refused = [reply for reply in replies if isinstance(reply, ReplyError)]
            if refused:
                raise TierUnavailable(f"Redis at {address} refuses: {refused[0]}")
            return link, _run_id(address, replies[len(self._greeting)])
        except BaseException as error:
            if link is not None:
                await link.close()
            match error:
                case TimeoutError():
                    reason = "no answer"
                case LinkLost():
                    reason = "it closed the connection"
                case OSError():
                    reason = why_refused(error)
                case _:
                    raise
            raise TierUnavailable(f"Redis at {address} cannot be reached: {reason}.") from None


def _run_id(address: Address, info: bytes) -> bytes:
    """The run id in the answer to INFO; raises `TierUnavailable` if the server is too old."""
    facts = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
    version = facts[b"redis_version"].decode()
    if int(version.split(".")[0]) < _OLDEST_MAJOR:
        raise TierUnavailable(
            f"Redis at {address} is version {version}: {_OLDEST_MAJOR} or newer is needed."
        )
    return facts[b"run_id"]
