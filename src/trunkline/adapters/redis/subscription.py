"""A worker's inbox: a sharded pub/sub channel on a connection of its own."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from trunkline.adapters.redis.backlog import Backlog
from trunkline.adapters.redis.connection import Backoff
from trunkline.adapters.redis.dialling import Dialler
from trunkline.adapters.redis.link import Link, LinkFull, LinkLost, Reply, pack
from trunkline.adapters.redis.servers import Servers
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import TierUnavailable

log = logging.getLogger(__name__)

_PING: Final = pack((b"PING",))
_BEATS: Final = 2.0
"""Pings within the time in which one must be answered."""


class _SubscribedLink(Link):
    """A link on which messages arrive between the replies."""

    def __init__(
        self,
        most_in_flight: int,
        on_lost: Callable[[], None],
        on_packet: Callable[[bytes], None],
    ) -> None:
        super().__init__(most_in_flight, on_lost)
        self._on_packet = on_packet

    def take(self, arrived: list[Reply]) -> None:
        """Sorts messages from replies; being unsubscribed (the slot moved) ends the link."""
        replies: list[Reply] = []
        for reply in arrived:
            if isinstance(reply, list) and reply[0] == b"smessage":
                self._on_packet(reply[2])
            elif isinstance(reply, list) and reply[0] == b"sunsubscribe":
                self.abort()
            else:
                replies.append(reply)
        super().take(replies)


class Subscription:
    """Subscribes, again and again, where commands go: only there is this worker published to."""

    def __init__(
        self,
        channel: bytes,
        tag: bytes,
        servers: Servers,
        dialler: Dialler,
        settings: Settings,
        jitter: Callable[[], float],
        backlog: Backlog,
    ) -> None:
        """`backlog`: takes what arrives, and None each time when it was subscribed anew."""
        self._subscribe = pack((b"SSUBSCRIBE", channel))
        self._tag = tag
        self._servers = servers
        self._dialler = dialler
        self._settings = settings
        self._backoff = Backoff(settings.reconnect_seconds, jitter)
        self._backlog = backlog
        self._link: _SubscribedLink | None = None
        self._run_id = b""

    async def subscribe(self) -> None:
        """Connects and subscribes; raises `TierUnavailable` with the reason."""
        self._link, server, _ = await self._dialler.dial(
            self._servers.of(self._tag).address,
            lambda: _SubscribedLink(self._settings.in_flight, lambda: None, self._backlog.put),
            [self._subscribe],
        )
        self._run_id = server.run_id

    async def run(self) -> None:
        """Keeps subscribed until cancelled."""
        while True:
            if self._link is not None:
                await self._watch(self._link)
                log.warning("the subscription of this worker's inbox is lost")
            await self._backoff.pause()
            try:
                await self.subscribe()
            except TierUnavailable as error:
                log.debug("%s", error)
                self._servers.look_again()
            else:
                self._backoff.reset()
                self._backlog.tell_of_gap()

    async def close(self) -> None:
        """Closes the socket of what is no longer run."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _watch(self, link: Link) -> None:
        """Returns once the link is lost; a server that is silent too long loses it."""
        while not link.lost.is_set():
            try:
                async with asyncio.timeout(self._settings.stall_seconds / _BEATS):
                    await link.lost.wait()
            except TimeoutError:
                if self._is_elsewhere():
                    await link.close()
                else:
                    await self._beat(link)
        self._link = None

    def _is_elsewhere(self) -> bool:
        """Whether commands go to another server, that the address names by now."""
        commands = self._servers.of(self._tag)
        named = commands.server
        return not commands.away and named is not None and named.run_id != self._run_id

    async def _beat(self, link: Link) -> None:
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                await link.request([_PING])
        except (TimeoutError, LinkFull):
            await link.close()
        except LinkLost:
            pass  # seen by the caller
