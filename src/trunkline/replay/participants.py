"""Makes the clients of a replay: one endpoint a user, all in one local store file."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import msgspec

from trunkline.client import Client, Counters, LocalStore
from trunkline.client.link import Dialer
from trunkline.errors import TrunklineError, Unreachable
from trunkline.model import EndpointId, UserId

ENDPOINT: Final = EndpointId("replay")
OWN_SERVER_WINDOW: Final = 32
OTHER_SERVER_WINDOW: Final = 1
"""Another server may refuse one send (rate, overload) and take the one behind it, which would
break the sender's order: then no second is in flight."""
_RECONNECT_FIRST_SECONDS: Final = 0.1
_RECONNECT_MOST_SECONDS: Final = 2.0

TokenOf = Callable[[UserId], str]


class Participants:
    """Opens users' endpoints, and adds up what they counted when they are closed.

    Attributes:
        counters: the sum over all endpoints that were closed.
        reports: what clients reported while they went on, by error code.
    """

    def __init__(
        self,
        url: str,
        dialer: Dialer,
        store: LocalStore,
        token_of: TokenOf,
        random: Random,
        *,
        window: int,
    ) -> None:
        self._url = url
        self._dialer = dialer
        self._store = store
        self._token_of = token_of
        self._random = random
        self._window = window
        self.counters = Counters()
        self.reports: Counter[str] = Counter()

    @asynccontextmanager
    async def endpoint(self, user: UserId, *, push: bool) -> AsyncIterator[Client]:
        """The user's endpoint. Without `push` it only sends and keeps no copies."""

        async def token() -> str:
            return self._token_of(user)

        client = Client(
            self._url,
            token=token,
            user=user,
            endpoint=ENDPOINT,
            store=self._store,
            push=push,
            window=self._window,
            dialer=self._dialer,
            randomness=self._random,
            report=self._report,
            reconnect_first_seconds=_RECONNECT_FIRST_SECONDS,
            reconnect_most_seconds=_RECONNECT_MOST_SECONDS,
        )
        done = False
        try:
            async with client:
                try:
                    yield client
                    done = True
                finally:
                    self._add(client.counters)
        except Unreachable:
            # The connection went while the last offsets were confirmed: a matter of the
            # next sync, not of what the endpoint holds.
            if not done:
                raise

    def _report(self, error: TrunklineError) -> None:
        self.reports[error.code] += 1

    def _add(self, counters: Counters) -> None:
        for name in msgspec.structs.asdict(counters):
            setattr(self.counters, name, getattr(self.counters, name) + getattr(counters, name))
