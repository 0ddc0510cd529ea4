"""Pulls what was acknowledged, one entry at a time and without pause: it is there, or an error."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import websockets
from crowd import Writer, token_of
from foreign_client import ForeignClient, Frame
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from trunkline.adapters.jwt import TokenKeys

_PAUSE_SECONDS = 0.02
_CLOSE_SECONDS = 1.0


@asynccontextmanager
async def greeted(
    url: str, token: str, *, binary: bool = False, **fields: object
) -> AsyncIterator[ForeignClient]:
    """A connection that said hello with these fields."""
    offered = [Subprotocol("trunkline.msgpack" if binary else "trunkline.json")]
    async with connect(
        url, subprotocols=offered, close_timeout=_CLOSE_SECONDS, max_size=None, proxy=None
    ) as socket:
        client = ForeignClient(socket, binary=binary)
        await client.send("hello", token=token, **fields)
        yield client


class Puller:
    """A user's endpoint that keeps nothing and asks for any of what the user had acknowledged.

    Attributes:
        answers: entries that came.
        refused: errors that came instead, by code; all of them retryable.
    """

    def __init__(self, url: str, keys: TokenKeys, writer: Writer, chance: random.Random) -> None:
        self._url = url
        self._keys = keys
        self._writer = writer
        self._chance = chance
        self.answers = 0
        self.refused: Counter[str] = Counter()

    async def run(self) -> None:
        """Pulls until cancelled; comes back after every loss."""
        while True:
            try:
                await self._connected()
            except (OSError, TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _connected(self) -> None:
        token = token_of(self._keys, self._writer.client.user)
        async with greeted(self._url, token, endpoint="puller", push=False) as client:
            request = 0
            while True:
                await asyncio.sleep(_PAUSE_SECONDS)
                if self._writer.acked:
                    request += 1
                    await self._pull(client, request)

    async def _pull(self, client: ForeignClient, request: int) -> None:
        conversation, seq, body = self._chance.choice(self._writer.acked)
        wanted = {"conversation": conversation, "after": seq - 1, "up_to": seq}
        answer = await client.ask("pull", request=request, ranges=[wanted])
        if answer["t"] == "error":
            assert answer.get("retryable"), answer
            self.refused[answer["code"]] += 1
            return
        assert _entries(answer) == [(seq, body)], f"I4, I8: {answer} is not {seq}: {body!r}"
        self.answers += 1


def _entries(pulled: Frame) -> list[tuple[int, str]]:
    return [(entry["seq"], entry["body"]) for run in pulled["runs"] for entry in run["entries"]]
