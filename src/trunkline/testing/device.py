"""Simulated device: a real client whose user does something at random, until told to be calm.

It goes offline and comes back, loses its power, and shows the oracle what it is given.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from trunkline.client import AtOnce, Client, MemoryStore, Message, WhenIdle
from trunkline.errors import (
    BY_CODE,
    AheadOfHead,
    ConversationExists,
    InvalidInput,
    NotAllowed,
    NotMember,
    TrunklineError,
)
from trunkline.model import (
    ClientMessageId,
    ConversationId,
    ConversationKind,
    EndpointId,
    Entry,
    UserId,
)
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.history import Broken
from trunkline.testing.network import SimulatedDialer
from trunkline.testing.oracle import Oracle
from trunkline.wire.encoding import JSON, MESSAGEPACK

_GROUPS_MOST: Final = 5
_PADDINGS: Final = (0, 0, 3, 10, 20, 40, 80, 120, 160, 220)
"""The longest make a body that is refused."""
_SCRIPT: Final = ("say",) * 12 + ("say_in_group",) * 10 + (
    "repeat", "repeat", "mark", "mark", "mark", "look", "look", "create", "add", "add",
    "add", "add", "remove", "remove", "leave", "rename",
)  # fmt: skip
_REFUSALS: Final = (AheadOfHead, ConversationExists, InvalidInput, NotAllowed, NotMember)
"""What users who act at random must expect; anything else that no retry mends is a fault."""


class _Message(msgspec.Struct, frozen=True):
    id: ClientMessageId
    body: str
    conversation: ConversationId | None
    to: UserId | None


class Crowd:
    """What all devices of a run share: who there is, which groups, what was said before."""

    def __init__(self, users: list[UserId]) -> None:
        self.users = users
        self.groups: list[ConversationId] = []
        self._said: dict[UserId, list[_Message]] = {user: [] for user in users}
        self._count = 0

    def next_number(self) -> int:
        """A number that was not used before."""
        self._count += 1
        return self._count

    def said(self, user: UserId) -> list[_Message]:
        """What a user said so far, on any device."""
        return self._said[user]


class Device:
    """One endpoint.

    Attributes:
        client: the client that runs now, None while the device is off.
        keeps_copies: whether it does more than send.
        calm: its user does nothing any more, and it stays on.
        durable: body and id of messages that were in its outbox for good.
    """

    def __init__(
        self,
        user: UserId,
        endpoint: EndpointId,
        crowd: Crowd,
        dialer: SimulatedDialer,
        clock: SimulatedClock,
        oracle: Oracle,
        seed: str,
        client_type: type[Client] = Client,
    ) -> None:
        self.user = user
        self.endpoint = endpoint
        self.store = MemoryStore()
        self.client: Client | None = None
        self.calm = False
        self._random = random.Random(seed)
        self.keeps_copies = self._random.random() < 0.9
        self.durable: dict[str, ClientMessageId] = {}
        self._crowd = crowd
        self._dialer = dialer
        self._clock = clock
        self._oracle = oracle
        self._encoding = JSON if self._random.random() < 0.2 else MESSAGEPACK
        self._client_type = client_type
        self._session: asyncio.Task[None] | None = None

    # --- its life -------------------------------------------------------------------------

    async def live(self, after_seconds: float) -> None:
        """On and off; once calm, on until cancelled."""
        await asyncio.sleep(after_seconds)
        while True:
            async with asyncio.TaskGroup() as group:
                self._session = group.create_task(self._on())
            if not self.calm:
                await asyncio.sleep(self._random.expovariate(1 / 1.5))

    def power_cut(self) -> None:
        """The device goes off; what its store had not flushed is gone."""
        if self._session is not None and self.client is not None:
            self.store.crash(self.user, self.endpoint)
            self._session.cancel()

    async def act(self, name: str) -> None:
        """Its user does one thing, if the device is on; returns when it was answered."""
        act = None if self.client is None else self._act(self.client, name)
        if act is not None:
            await self._attempt(act)

    async def _on(self) -> None:
        client = self._client_type(
            "",
            token=self._token,
            user=self.user,
            endpoint=self.endpoint,
            store=self.store,
            policy=AtOnce() if self._random.random() < 0.7 else WhenIdle(2),
            push=self.keeps_copies,
            window=self._random.choice((1, 4, 32)),
            encoding=self._encoding,
            dialer=self._dialer,
            clock=self._clock,
            randomness=self._random,
            report=self._reported,
            reconnect_most_seconds=8.0,
        )
        try:
            async with client:
                self.client = client
                await self._use(client)
        finally:
            self.client = None

    async def _token(self) -> str:
        return self.user

    async def _use(self, client: Client) -> None:
        """Acts and reads; what is under way when it ends is given up."""
        until = self._clock.monotonic() + self._random.uniform(0.5, 12.0)
        async with asyncio.TaskGroup() as group:
            under_way = [group.create_task(self._read(client))]
            while not self.calm and self._clock.monotonic() < until:
                for _ in range(self._random.choice((1, 1, 1, 2, 6))):
                    act = self._act(client, self._random.choice(_SCRIPT))
                    if act is not None:
                        under_way.append(group.create_task(self._attempt(act)))
                await asyncio.sleep(self._random.expovariate(1 / 0.35))
            if self.calm:
                await asyncio.Event().wait()  # until it is cancelled
            for task in under_way:
                task.cancel()

    async def _attempt(self, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except _REFUSALS:
            self._oracle.counts.refused += 1
        except TrunklineError as error:
            self._reported(error)

    def _reported(self, error: TrunklineError) -> None:
        kind = BY_CODE.get(error.code, type(error))
        if error.code == "internal" or not (kind.retryable or isinstance(error, _REFUSALS)):
            self._oracle.note(Broken(f"{self._name} was told {error.code}: {error.detail}"))
        if error.code == "digest_mismatch":
            self._oracle.note(Broken(f"I14: {self._name}: {error.detail}"))

    @property
    def _name(self) -> str:
        return f"{self.user!r} on {self.endpoint!r}"

    # --- what its user does -----------------------------------------------------------------

    def _act(self, client: Client, name: str) -> Callable[[], Awaitable[object]] | None:
        """What to do next, drawn now; doing it may take long."""
        if name == "say":
            others = [user for user in self._crowd.users if user != self.user]
            return self._say(client, None, self._random.choice(others))
        if name == "repeat":
            said = self._crowd.said(self.user)
            return self._post(client, self._random.choice(said)) if said else None
        if name == "mark":
            return self._mark(client)
        if name == "look":
            return self._look(client)
        group = self._group(client, create=name == "create")
        if group is None:
            return None
        some = self._random.sample(self._crowd.users, self._random.randint(1, 2))
        match name:
            case "say_in_group":
                return self._say(client, group, None)
            case "create":
                return lambda: client.create(group, some, name=f"Group {group}")
            case "add":
                return lambda: client.add(group, some)
            case "remove":
                return lambda: client.remove(group, some)
            case "leave":
                return lambda: client.leave(group)
            case _:
                return lambda: client.rename(group, f"{group} by {self.user}")

    def _group(self, client: Client, *, create: bool) -> ConversationId | None:
        """Mostly a group of one's own, now and then one that is none of one's business."""
        groups = self._crowd.groups
        if create and len(groups) < _GROUPS_MOST:
            groups.append(ConversationId(f"group {self._crowd.next_number()} é"))
            return groups[-1]
        own = [
            info.conversation
            for info in client.conversations()
            if info.kind is ConversationKind.GROUP and not info.left
        ]
        if self._random.random() < 0.15 or create:
            own = groups
        return self._random.choice(own) if own else None

    def _say(
        self, client: Client, conversation: ConversationId | None, to: UserId | None
    ) -> Callable[[], Awaitable[object]]:
        number = self._crowd.next_number()
        padding = "·" * self._random.choice(_PADDINGS)
        # Two devices of a user draw from one space: what counts is that it is unique to the sender.
        message = _Message(
            ClientMessageId(f"{self._random.getrandbits(40):x}-{number}"),
            f"{number} {self.user} {padding}",
            conversation,
            to,
        )
        self._crowd.said(self.user).append(message)
        return self._post(client, message)

    def _post(self, client: Client, message: _Message) -> Callable[[], Awaitable[object]]:
        async def post() -> None:
            posted = await client.post(
                message.conversation, message.body, to=message.to, id=message.id
            )
            self.durable[message.body] = message.id
            await posted

        return post

    def _mark(self, client: Client) -> Callable[[], Awaitable[object]] | None:
        held = [info for info in client.conversations() if info.last >= info.first]
        if not held:
            return None
        info = self._random.choice(held)
        to = self._random.randint(info.first, info.last)
        return lambda: client.mark(info.conversation, to)

    def _look(self, client: Client) -> Callable[[], Awaitable[object]] | None:
        held = client.conversations()
        if not held:
            return None
        info = self._random.choice(held)
        after = self._random.randint(0, info.last)

        async def look() -> None:
            messages = await client.history(info.conversation, after=after)
            first = messages[0].seq if messages else 0
            if [m.seq for m in messages] != list(range(first, first + len(messages))):
                self._oracle.note(Broken(f"I1: {self._name} looked into a hole."))
            for message in messages:
                self._oracle.observe(self.user, message.conversation, [_entry(message)])

        return look

    async def _read(self, client: Client) -> None:
        """Reads the feed: in order, each entry once."""
        last: dict[ConversationId, int] = {}
        try:
            async with aclosing(client.entries(from_start=self._random.random() < 0.3)) as feed:
                async for m in feed:
                    before = last.setdefault(m.conversation, m.seq - 1)
                    if m.seq <= before:
                        raise Broken(f"{self._name} was handed {m.conversation!r} {m.seq} twice.")
                    if m.seq > before + 1:
                        self._oracle.jumped(self.user, m.conversation, before, m.seq)
                    last[m.conversation] = m.seq
                    self._oracle.observe(self.user, m.conversation, [_entry(m)])
        except Broken as broken:
            self._oracle.note(broken)
        except TrunklineError as error:
            self._reported(error)


def _entry(m: Message) -> Entry:
    return Entry(m.seq, m.sender, m.time_ms, m.body, m.kind, m.content_type, m.refers_to)
