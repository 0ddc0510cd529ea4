"""The bus over Redis: an inbox a worker, and the workers that serve a user (DESIGN section 3)."""

from collections.abc import AsyncIterator, Collection, Mapping

from trunkline.adapters.redis.backlog import Backlog
from trunkline.adapters.redis.keys import Keys
from trunkline.adapters.redis.link import pack
from trunkline.adapters.redis.registrations import Registrations
from trunkline.adapters.redis.servers import Call, Servers
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.unanswered import Unanswered
from trunkline.errors import TierUnavailable
from trunkline.model import UserId, WorkerId
from trunkline.ports.bus import Forgotten


class RedisBus:
    """A `ports.bus.Bus`."""

    def __init__(
        self,
        servers: Servers,
        worker: WorkerId,
        keys: Keys,
        presence: Registrations[UserId],
        backlog: Backlog,
        unanswered: Unanswered,
        settings: Settings,
    ) -> None:
        self._servers = servers
        self._worker = worker
        self._keys = keys
        self._presence = presence
        self._backlog = backlog
        self._unanswered = unanswered
        self._settings = settings

    async def publish(self, packets: Mapping[WorkerId, bytes]) -> Collection[WorkerId]:
        """Sends each worker its packet; returns those whom nobody is there to hear for."""
        calls: list[Call] = []
        for worker, packet in packets.items():
            tag, channel = self._keys.inbox(worker)
            command = pack((b"SPUBLISH", channel, packet))
            calls.append((self._servers.of(tag), command))
        heard = await self._servers.call(calls, self._settings.answer_seconds)
        return [worker for worker, count in zip(packets, heard, strict=True) if not count]

    async def received(self) -> AsyncIterator[bytes | Forgotten | None]:
        """This worker's packets, and what may be lost, see the port."""
        while True:
            yield await self._backlog.next()

    async def present(self, users: Collection[UserId]) -> None:
        """This worker serves these users; if Redis is away it is entered later."""
        try:
            await self._presence.add(users)
        except TierUnavailable as error:
            self._unanswered.note("present", error)

    async def absent(self, users: Collection[UserId], worker: WorkerId | None = None) -> None:
        """This worker, or a dead one, serves these users no more."""
        try:
            await self._presence.remove(users, worker)
        except TierUnavailable as error:
            self._unanswered.note("absent", error)

    async def workers_of(self, users: Collection[UserId]) -> Mapping[UserId, Collection[WorkerId]]:
        """Which other workers serve these users; raises `TierUnavailable`."""
        calls: list[Call] = []
        for user in users:
            tag, name = self._keys.workers(user)
            calls.append((self._servers.of(tag), pack((b"HKEYS", name))))
        replies = await self._servers.call(calls, self._settings.read_seconds)
        found: dict[UserId, Collection[WorkerId]] = {}
        for user, names in zip(users, replies, strict=True):
            workers = [WorkerId(name.decode()) for name in names]
            others = [worker for worker in workers if worker != self._worker]
            if others:
                found[user] = others
        return found
