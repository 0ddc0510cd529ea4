"""Keeps a link to one Redis server up: bounded answers, breaker, scripts, reconnects."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from trunkline.adapters.redis.dialling import Address, Dialler
from trunkline.adapters.redis.link import Link, LinkFull, LinkLost, Reply, ReplyError, pack
from trunkline.adapters.redis.scripts import LOADS
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import TierUnavailable

log = logging.getLogger(__name__)

_PING: Final = pack((b"PING",))
_FIRST_PAUSE_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 0.001
"""Long enough for the loop to look at its sockets once more."""


class AnswerLate(Exception):
    """No answer within the bound; one that comes yet is nobody's."""


class Backoff:
    """Pauses between tries: each twice as long, up to a bound, half of it jitter."""

    def __init__(self, longest_seconds: float, jitter: Callable[[], float]) -> None:
        self._longest = longest_seconds
        self._jitter = jitter
        self._next = _FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        """The next pause is short again."""
        self._next = _FIRST_PAUSE_SECONDS

    async def pause(self) -> None:
        """Waits out the next pause."""
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        await asyncio.sleep(seconds * (0.5 + 0.5 * self._jitter()))


class Connection:
    """Commands to one server, from any number of callers.

    A call that is not answered in time opens the breaker: calls fail at once until, after a
    pause, a PING is answered. As answers keep their order, everything before it is then
    answered, too. A PING that is not answered ends the link, and another is made.

    Attributes:
        run_id: who the server is; another after a restart or a failover.
        on_connected: called after every connect, the first one, too.
    """

    def __init__(
        self,
        address: Address,
        dialler: Dialler,
        settings: Settings,
        jitter: Callable[[], float],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.address = address
        self.run_id = b""
        self.on_connected: Callable[[], None] = lambda: None
        self._dialler = dialler
        self._settings = settings
        self._backoff = Backoff(settings.reconnect_seconds, jitter)
        self._link: Link | None = None
        self._suspended = False
        self._trouble = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether calls fail at once, until it answers again."""
        return self._link is None or self._suspended

    async def connect(self) -> None:
        """Connects and loads the scripts; raises `TierUnavailable` with the reason."""
        self._link, self.run_id = await self._dialler.dial(
            self.address,
            lambda: Link(self._settings.in_flight, self._trouble.set),
            LOADS,
        )
        self._suspended = False
        self.on_connected()

    async def run(self) -> None:
        """Connects, unless connected, and keeps the connection up until cancelled."""
        if self._link is None:
            self._trouble.set()
        while True:
            await self._trouble.wait()
            self._trouble.clear()
            if self._link is not None and not self._link.lost.is_set():
                await self._probe(self._link)
            if self._link is None or self._link.lost.is_set():
                await self._reconnect()

    async def close(self) -> None:
        """Closes the socket; calls fail from now on."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def call(self, commands: Sequence[bytes], seconds: float) -> list[Reply]:
        """One reply for each packed command, in their order, within `seconds`.

        An error reply is a `ReplyError` in its place; scripts that the server forgot are
        loaded again. Raises `TierUnavailable`: then any of the commands may have been
        carried out or not.
        """
        link = self._link
        if link is None or self._suspended:
            raise TierUnavailable(f"Redis at {self.address} does not answer.")
        until = self._loop.time() + seconds
        try:
            replies = await self._answer(link, commands, until)
            if ReplyError in map(type, replies):
                await self._with_scripts(link, commands, replies, until)
            return replies
        except AnswerLate:
            self._suspend()
            raise TierUnavailable(
                f"Redis at {self.address} did not answer within {seconds} s."
            ) from None
        except LinkFull:
            raise TierUnavailable(f"Redis at {self.address} is behind.") from None
        except LinkLost:
            raise TierUnavailable(f"Redis at {self.address} is gone.") from None

    async def _answer(self, link: Link, commands: Sequence[bytes], until: float) -> list[Reply]:
        future = link.request(commands)
        timer = self._loop.call_at(until, self._late, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _late(self, future: asyncio.Future[list[Reply]]) -> None:
        # It may be this process that stood still, and the answer may be there to be read.
        self._loop.call_later(_GRACE_SECONDS, _give_up, future)

    async def _with_scripts(
        self, link: Link, commands: Sequence[bytes], replies: list[Reply], until: float
    ) -> None:
        """Repeats, in place, what failed because the server no longer knew its script."""
        places = [
            place
            for place, reply in enumerate(replies)
            if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
        ]
        if not places:
            return
        again = [*LOADS, *(commands[place] for place in places)]
        repeated = (await self._answer(link, again, until))[len(LOADS) :]
        for place, reply in zip(places, repeated, strict=True):
            replies[place] = reply

    def _suspend(self) -> None:
        if not self._suspended:
            log.warning("Redis at %s does not answer in time: going on without", self.address)
        self._suspended = True
        self._trouble.set()

    async def _probe(self, link: Link) -> None:
        await asyncio.sleep(self._settings.pause_seconds)
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                await link.request([_PING])
        except (TimeoutError, LinkFull):
            await link.close()
        except LinkLost:
            pass  # noted by the caller
        else:
            self._suspended = False
            self._trouble.clear()
            log.info("Redis at %s answers again", self.address)

    async def _reconnect(self) -> None:
        if self._link is not None:
            log.warning("the connection to Redis at %s is lost", self.address)
        self._link = None
        self._backoff.reset()
        while True:
            await self._backoff.pause()
            try:
                await self.connect()
            except TierUnavailable as error:
                log.debug("%s", error)
            else:
                log.info("connected to Redis at %s again", self.address)
                return


def _give_up(future: asyncio.Future[list[Reply]]) -> None:
    if not future.done():
        future.set_exception(AnswerLate())
