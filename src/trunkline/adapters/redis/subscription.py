"""A worker's inbox: a sharded pub/sub channel on a connection of its own.

What nobody takes is bounded; past it all is dropped, and the reader told so.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from trunkline.adapters.redis.connection import Backoff
from trunkline.adapters.redis.dialling import Dialler
from trunkline.adapters.redis.link import Link, LinkFull, LinkLost, Reply, ReplyError, pack
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
    """Subscribes, again and again, and keeps what arrives until it is taken."""

    def __init__(
        self,
        channel: bytes,
        tag: bytes,
        servers: Servers,
        dialler: Dialler,
        settings: Settings,
        jitter: Callable[[], float],
    ) -> None:
        self._channel = channel
        self._tag = tag
        self._servers = servers
        self._dialler = dialler
        self._settings = settings
        self._backoff = Backoff(settings.reconnect_seconds, jitter)
        self._link: _SubscribedLink | None = None
        self._packets: deque[bytes | None] = deque()
        self._arrived = asyncio.Event()

    async def subscribe(self) -> None:
        """Connects and subscribes; raises `TierUnavailable` with the reason."""
        address = self._servers.of(self._tag).address
        link, _ = await self._dialler.dial(
            address,
            lambda: _SubscribedLink(self._settings.in_flight, lambda: None, self._put),
        )
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                (reply,) = await link.request([pack((b"SSUBSCRIBE", self._channel))])
        except (TimeoutError, LinkLost):
            await link.close()
            raise TierUnavailable(f"Redis at {address} does not answer.") from None
        if isinstance(reply, ReplyError):
            await link.close()
            raise TierUnavailable(f"Redis at {address} refuses: {reply}")
        self._link = link

    async def run(self) -> None:
        """Keeps subscribed until cancelled; each time anew puts None into the inbox."""
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
                self.tell_of_gap()

    def tell_of_gap(self) -> None:
        """Puts None into the inbox, unless it is the last that is there."""
        if not self._packets or self._packets[-1] is not None:
            self._put(None)

    async def close(self) -> None:
        """Closes the socket of what is no longer run."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def next(self) -> bytes | None:
        """The next packet; None: what was before it may be lost."""
        while not self._packets:
            self._arrived.clear()
            await self._arrived.wait()
        return self._packets.popleft()

    async def _watch(self, link: Link) -> None:
        """Returns once the link is lost; a server that is silent too long loses it."""
        while not link.lost.is_set():
            try:
                async with asyncio.timeout(self._settings.stall_seconds / _BEATS):
                    await link.lost.wait()
            except TimeoutError:
                await self._beat(link)
        self._link = None

    async def _beat(self, link: Link) -> None:
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                await link.request([_PING])
        except (TimeoutError, LinkFull):
            await link.close()
        except LinkLost:
            pass  # seen by the caller

    def _put(self, packet: bytes | None) -> None:
        packets = self._packets
        if len(packets) >= self._settings.inbox_packets:
            log.warning("this worker's inbox is full: %d packets dropped", len(packets))
            packets.clear()
            packets.append(None)
        packets.append(packet)
        self._arrived.set()
