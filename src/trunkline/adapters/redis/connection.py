"""Keeps a link to one Redis server up: bounded answers, breaker, scripts, reconnects."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final, NoReturn

from trunkline.adapters.redis.dialling import WHO, Address, Dialler, Server
from trunkline.adapters.redis.link import Link, LinkFull, LinkLost, Reply, ReplyError, pack
from trunkline.adapters.redis.refusals import Refusal, Refusals, Refused, refusal_in
from trunkline.adapters.redis.scripts import LOADS, source
from trunkline.adapters.redis.settings import Settings
from trunkline.errors import TierUnavailable

log = logging.getLogger(__name__)

_TIME: Final = pack((b"TIME",))
_CLAIM: Final = source("life")
_IDENTITY_BYTES: Final = 16
_BEAT_SECONDS: Final = 0.5
"""So long after it happened everybody knows that the server is another one."""
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
    pause, a beat is answered. As answers keep their order, everything before it is then
    answered, too. A beat that is not answered ends the link, and another is made.

    A server that answers and refuses is not the tier: it is left at once, and whoever the
    address names then is dialled. So is one whose data set began anew: each call ends with a
    look at the mark that tells its lives apart, and a beat looks when nobody calls.

    Attributes:
        server: who the server is.
        identity: the server, its history and the life of its data set as one name; another
            after a restart, a failover, a wipe. Empty before the first connect.
        seconds: the server's clock, as of the end of the last call that was answered.
        on_connected: called after every connect, the first one, too.
        on_refused: called when a server was left, or not taken.
    """

    def __init__(
        self,
        address: Address,
        dialler: Dialler,
        settings: Settings,
        jitter: Callable[[], float],
        refusals: Refusals,
        mark: bytes,
    ) -> None:
        """`mark`: the key of the mark."""
        self._loop = asyncio.get_running_loop()
        self.address = address
        self.server: Server | None = None
        self.identity = b""
        self.seconds = -math.inf
        self.on_connected: Callable[[], None] = lambda: None
        self.on_refused: Callable[[], None] = lambda: None
        self._dialler = dialler
        self._settings = settings
        self._refusals = refusals
        self._backoff = Backoff(settings.reconnect_seconds, jitter)
        self._mark, self._look = mark, [_TIME, pack((b"GET", mark))]
        self._life: Reply = None
        self._link: Link | None = None
        self._connected_at = -math.inf
        self._suspended = False
        self._trouble = asyncio.Event()
        self._named: Refusal | None = None

    @property
    def away(self) -> bool:
        """Whether calls fail at once, until it answers again."""
        return self._link is None or self._suspended

    async def connect(self) -> None:
        """Connects, loads the scripts, and sees that it is the tier.

        Raises `TierUnavailable` with the reason.
        """
        link, server, answers = await self._dialler.dial(
            self.address,
            lambda: Link(self._settings.in_flight, self._trouble.set),
            [*LOADS, _TIME, self._claim()],
        )
        try:
            server.check_primary(self.address)
        except TierUnavailable:
            await link.close()
            raise
        self._link, self.server, self._life = link, server, answers[-1]
        self.seconds = _seconds(answers[-2])
        parts = (server.run_id, server.history, self._life)
        self.identity = blake2b(b" ".join(parts), digest_size=_IDENTITY_BYTES).hexdigest().encode()
        self._connected_at = self._loop.time()
        self._suspended = False
        self.on_connected()

    async def run(self) -> None:
        """Connects, unless connected, and keeps the connection up until cancelled."""
        while True:
            link = self._link
            if link is None or link.lost.is_set():
                await self._reconnect()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._trouble.wait()
            self._trouble.clear()
            if not link.lost.is_set():
                await self._beat(link)

    def marked_by(self, mark: bytes) -> None:
        """The mark is another key from now on."""
        if mark != self._mark:
            self._mark, self._look = mark, [_TIME, pack((b"GET", mark))]
            self.abort()

    def abort(self) -> None:
        """Closes the socket now; `run` makes another."""
        if self._link is not None:
            self._link.abort()

    async def close(self) -> None:
        """Closes the socket; calls fail from now on."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def call(self, commands: Sequence[bytes], seconds: float) -> list[Reply]:
        """One reply for each packed command, in their order, within `seconds`.

        An error that concerns only what was asked is a `ReplyError` in its place; scripts that
        the server forgot are loaded again. Raises `TierUnavailable`: then any of the commands
        may have been carried out or not.
        """
        link = self._link
        if link is None or self._suspended:
            raise TierUnavailable(f"Redis at {self.address} does not answer.")
        if not commands:
            return []
        until = self._loop.time() + seconds
        try:
            replies = await self._answer(link, [*commands, *self._look], until)
            if replies[-1] != self._life or ReplyError in map(type, replies):
                await self._with_scripts(link, commands, replies, until)
                self._judge(link, replies)
        except AnswerLate:
            self._suspend()
            raise TierUnavailable(
                f"Redis at {self.address} did not answer within {seconds} s."
            ) from None
        except LinkFull:
            raise TierUnavailable(f"Redis at {self.address} is behind.") from None
        except LinkLost:
            raise TierUnavailable(f"Redis at {self.address} is gone.") from None
        self.seconds = _seconds(replies[-2])
        del replies[-2:]
        return replies

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
        again = [*LOADS, *(commands[place] for place in places), *self._look]
        repeated = (await self._answer(link, again, until))[len(LOADS) :]
        for place, reply in zip([*places, -2, -1], repeated, strict=True):
            replies[place] = reply

    def _claim(self) -> bytes:
        """What returns the data set's life, and begins it where there is none."""
        return pack((b"EVAL", _CLAIM, 1, self._mark, self._dialler.unique_name()))

    def _judge(self, link: Link, replies: Sequence[Reply]) -> None:
        """Raises `Refused`, and the server is left, if the replies say that it is not the tier."""
        life = replies[-1]
        for reply in replies:
            if isinstance(reply, ReplyError):
                refusal = refusal_in(str(reply)) or (Refusal.OTHER if reply is life else None)
                if refusal is not None:
                    error = Refused(f"Redis at {self.address} refuses: {reply}", refusal)
                    self._leave(link, error)
        if life != self._life:
            self._leave(link, Refused(f"Redis at {self.address} was emptied.", Refusal.EMPTIED))

    def _leave(self, link: Link, error: Refused) -> NoReturn:
        if self._link is link:  # nobody noticed before
            self._note(error)
            self._link = None
            link.abort()
            self._trouble.set()
        raise error

    def _suspend(self) -> None:
        if not self._suspended:
            log.warning("Redis at %s does not answer in time: going on without", self.address)
        self._suspended = True
        self._trouble.set()

    async def _beat(self, link: Link) -> None:
        """Sees whether it answers, takes writes, and is the one that it was."""
        if self._suspended:
            await asyncio.sleep(self._settings.pause_seconds)
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                *who, now, life = await link.request([*WHO, _TIME, self._claim()])
            self._judge(link, [*who, now, life])
            server = Server.parse(self.address, who)
            if server != self.server:
                where = f"Redis at {self.address}"
                self._leave(link, Refused(f"{where} is not what it was.", Refusal.REPLACED))
        except LinkFull:
            if self._suspended:
                await link.close()
        except TimeoutError:
            await link.close()
        except (LinkLost, Refused):
            pass  # seen by the caller
        else:
            self.seconds = _seconds(now)
            if self._suspended:
                self._suspended = False
                log.info("Redis at %s answers again", self.address)

    async def _reconnect(self) -> None:
        if self._link is not None:
            log.warning("the connection to Redis at %s is lost", self.address)
        self._link = None
        if self._loop.time() - self._connected_at > self._settings.reconnect_seconds:
            # Else it was left soon after it had been taken, and will be again.
            self._backoff.reset()
            self._named = None
        while True:
            await self._backoff.pause()
            try:
                await self.connect()
            except Refused as error:
                self._note(error)
            except TierUnavailable as error:
                log.debug("%s", error)
            else:
                log.info("connected to Redis at %s again", self.address)
                return

    def _note(self, error: Refused) -> None:
        """Counts a refusal, and names it in the log if it is another than before."""
        self._refusals.note(error.refusal)
        self.on_refused()
        if error.refusal is not self._named:
            self._named = error.refusal
            log.warning("going on without Redis at %s: %s", self.address, error.detail)


def _give_up(future: asyncio.Future[list[Reply]]) -> None:
    if not future.done():
        future.set_exception(AnswerLate())


def _seconds(reply: Reply) -> float:
    """What TIME answered, as one number."""
    seconds, microseconds = reply
    return int(seconds) + int(microseconds) / 1_000_000
