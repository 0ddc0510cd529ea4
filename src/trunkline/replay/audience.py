"""Keeps the endpoints that are online while the file is sent, and lends them to senders."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from trunkline.client import Client
from trunkline.model import UserId
from trunkline.replay.participants import Participants
from trunkline.replay.proving import Proving

CONNECTING_AT_A_TIME: Final = 64


class Audience:
    """Endpoints that come online, are pushed to, and leave when they are proven.

    `users`: who they are. `arrived` is called with their number after each arrival.
    """

    def __init__(
        self, participants: Participants, users: Sequence[UserId], arrived: Callable[[int], None]
    ) -> None:
        self.users = users
        self._participants = participants
        self._arrived = arrived
        self._clients: dict[UserId, asyncio.Future[Client]] = {}
        self._present = 0
        self._all_present = asyncio.Event()
        self._leaving = asyncio.Event()
        self._connecting = asyncio.Semaphore(CONNECTING_AT_A_TIME)

    def open(self) -> None:
        """Called in the loop before anyone comes or speaks."""
        loop = asyncio.get_running_loop()
        self._clients = {user: loop.create_future() for user in self.users}
        if not self.users:
            self._all_present.set()

    async def gather(self, seconds: float) -> None:
        """Waits until all are there, but not longer: the rest arrive while lines are sent."""
        try:
            async with asyncio.timeout(seconds):
                await self._all_present.wait()
        except TimeoutError:
            return

    async def attend(self, user: UserId, proving: Proving, room: asyncio.Semaphore) -> None:
        """One of them, from coming online to being proven."""
        async with AsyncExitStack() as stack:
            async with self._connecting:
                endpoint = self._participants.endpoint(user, push=True)
                client = await stack.enter_async_context(endpoint)
                await client.wait_synced()
            self._clients[user].set_result(client)
            self._present += 1
            self._arrived(self._present)
            if self._present == len(self.users):
                self._all_present.set()
            await self._leaving.wait()
            async with room:
                await proving.prove(user, client)

    def dismiss(self) -> None:
        """All lines are sent: everyone may go."""
        self._leaving.set()

    @asynccontextmanager
    async def speaking(self, user: UserId, room: asyncio.Semaphore) -> AsyncIterator[Client]:
        """The user's endpoint: the online one, or a connection that only sends.

        `room` bounds how many speak at the same time.
        """
        arriving = self._clients.get(user)
        if arriving is not None:
            client = await asyncio.shield(arriving)
            async with room:
                yield client
            return
        async with room, self._participants.endpoint(user, push=False) as client:
            yield client
