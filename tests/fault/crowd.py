"""Six users who write without pause, and what they were told: kept outside of the product."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.client import Client, Proof
from trunkline.model import UserId

USERS = [f"user{number}" for number in range(6)]
GROUP = "everyone"
SYNC_SECONDS = 120.0
DAY_SECONDS = 86_400.0


class Ledger:
    """What was acknowledged: content by conversation and seq. No two messages are alike."""

    def __init__(self) -> None:
        self.acked: dict[str, dict[int, str]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._said = 0

    def next_body(self, user: str) -> str:
        self._said += 1
        return f"{user} says {self._said}"

    def note(self, conversation: str, seq: int, body: str) -> None:
        """An acknowledgement: one seq has one content (I2), one message one seq (I6)."""
        first = self.acked.setdefault(conversation, {}).setdefault(seq, body)
        assert first == body, f"I2: {conversation} {seq} is {first!r} and {body!r}"
        place = self._places.setdefault(body, (conversation, seq))
        assert place == (conversation, seq), f"I6: {body!r} is at {place} and {conversation} {seq}"

    def check(self, conversation: str, stored: Mapping[int, str | None]) -> None:
        """Every acknowledged message stands at its seq (I4); whatever stands there, once (I6)."""
        expected = self.acked.get(conversation, {})
        lost = {seq: body for seq, body in expected.items() if stored.get(seq) != body}
        assert not lost, (conversation, len(lost), sorted(lost.items())[:3])
        said = [body for body in stored.values() if body in self._places or " says " in str(body)]
        assert len(said) == len(set(said)), f"I6: {conversation} holds a message twice"


class Writer:
    """Sends without pause, and remembers what was acknowledged."""

    def __init__(self, client: Client, peer: str, ledger: Ledger) -> None:
        self.client = client
        self.acked: list[tuple[str, int, str]] = []
        self._peer = peer
        self._ledger = ledger

    async def write(self, pause_seconds: float = 0.0) -> None:
        while True:
            for to_group in (True, False):
                await self.say(to_group=to_group)
                await asyncio.sleep(pause_seconds)

    async def say(self, *, to_group: bool) -> None:
        """Sends one message, to the group or to the peer; returns once it is acknowledged."""
        body = self._ledger.next_body(self.client.user)
        if to_group:
            sent = await self.client.send(GROUP, body)
        else:
            sent = await self.client.send_to(self._peer, body)
        self._ledger.note(sent.conversation, sent.seq, body)
        self.acked.append((sent.conversation, sent.seq, body))

    async def write_side_by_side(self, senders: int, pause_seconds: float = 0.0) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(senders):
                tasks.create_task(self.write(pause_seconds))


class Crowd:
    """The users' clients, which live through all that happens to their server.

    Every user writes on a phone; `readers` are names of further endpoints of each of them,
    which only read. `stores` is where their copies are.
    """

    def __init__(self, stores: Path, readers: tuple[str, ...] = ()) -> None:
        self.ledger = Ledger()
        self.writers: list[Writer] = []
        self.clients: list[Client] = []
        self._stores = stores
        self._readers = readers
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def connect(self, url: str, keys: TokenKeys) -> None:
        """Connects all of them, and makes the group."""
        for user, peer in zip(USERS, USERS[1:] + USERS[:1], strict=True):
            for endpoint in ("phone", *self._readers):
                store = self._stores / f"{user}.{endpoint}.db"
                client = client_of(url, keys, user, endpoint, store)
                self.clients.append(await self._stack.enter_async_context(client))
                if endpoint == "phone":
                    self.writers.append(Writer(client, peer, self.ledger))
        await self.writers[0].client.create(GROUP, USERS[1:])

    @property
    def acked(self) -> int:
        """Messages acknowledged so far."""
        return sum(len(writer.acked) for writer in self.writers)

    async def converge(self, seconds: float = SYNC_SECONDS) -> None:
        """Waits until everything is sent and all copies have it; then they must be equal.

        Nobody is asked to look: what an endpoint lacks, it must notice by itself.
        """
        try:
            async with asyncio.timeout(seconds):
                for client in self.clients:
                    await client.wait_sent()
                while self._lacking():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not complete within {seconds} s: {self._lacking()}") from None
        self._check_copies()

    def _lacking(self) -> dict[str, dict[int, list[str]]]:
        """Of each conversation whose copies end differently, or too early: who ends where."""
        ends: dict[str, dict[int, list[str]]] = {}
        for client in self.clients:
            for info in client.conversations():
                who = f"{client.user}/{client.endpoint}"
                ends.setdefault(info.conversation, {}).setdefault(info.last, []).append(who)
        return {
            conversation: found
            for conversation, found in ends.items()
            if len(found) > 1 or max(found) < max(self.ledger.acked.get(conversation, [0]))
        }

    def _check_copies(self) -> None:
        """All copies of a conversation are equal (I7, I14), and none ever had to be healed."""
        proofs: dict[str, set[Proof]] = {}
        for client in self.clients:
            for info in client.conversations():
                proof = client.proof(info.conversation)
                proofs.setdefault(info.conversation, set()).add(proof)
        assert proofs.keys() >= self.ledger.acked.keys()
        differ = {conversation: found for conversation, found in proofs.items() if len(found) > 1}
        assert not differ, differ
        assert not any(client.counters.digest_mismatches for client in self.clients)


def client_of(
    url: str, keys: TokenKeys, user: str, endpoint: str, store: Path | None = None
) -> Client:
    """A user's client, which comes back soon after a loss."""
    return Client(
        url, token=token_of(keys, user), user=user, endpoint=endpoint, store=store,
        reconnect_first_seconds=0.05, reconnect_most_seconds=0.2,
    )  # fmt: skip


def token_of(keys: TokenKeys, user: str) -> str:
    now_ms = time.time_ns() // 1_000_000
    return mint(keys, UserId(user), now_ms=now_ms, ttl_seconds=DAY_SECONDS)
