"""The client: what an application sees of Trunkline."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from trunkline.client.clock import SystemClock
from trunkline.client.conversations import ConversationInfo, Message, Proof, SetApart
from trunkline.client.counters import Counters
from trunkline.client.driver import Driver, Settings, TokenSource
from trunkline.client.endpoint import Endpoint, Report
from trunkline.client.feed import Feed
from trunkline.client.held import Held
from trunkline.client.link import Dialer
from trunkline.client.outbox import Posted, SentMessage, Writing
from trunkline.client.policy import AtOnce, SyncPolicy
from trunkline.client.sqlite_store import SqliteStore
from trunkline.client.store import LocalStore, MemoryStore
from trunkline.client.websocket import WebSocketDialer
from trunkline.core.ids import uuid7
from trunkline.errors import (
    AheadOfHead,
    InvalidRange,
    NotAllowed,
    NotMember,
    Overloaded,
    TrunklineError,
)
from trunkline.model import (
    JSON,
    TEXT,
    ClientMessageId,
    ConversationId,
    EndpointId,
    Entry,
    Kind,
    Seq,
    UserId,
)
from trunkline.ports.clock import Clock
from trunkline.wire.encoding import MESSAGEPACK, Encoding
from trunkline.wire.frames import Add, Create, Leave, Remove, Rename, Send

OUTBOX_MAX: Final = 10_000
"""So many sends may wait; more are refused with `Overloaded`."""
LIVE_ENTRIES_MAX: Final = 1_000
"""A reader that is further behind reads on from the local store."""
_PAGE_ENTRIES: Final = 256
_log = logging.getLogger("trunkline.client")


class Client:
    """One endpoint of one user.

    Entering opens the local store and starts to connect; it does not wait for the server,
    and comes back after every loss by itself. Leaving saves, confirms and closes. What
    was posted and not acknowledged stays in the local store's outbox for the next run.

    Args:
        url: the server, such as ws://127.0.0.1:8470/v1.
        token: a signed token, or a coroutine function that gets one (asked for anew at
            every connect and before the old one expires).
        user: the token's user.
        endpoint: the name of this device; its local store belongs to it.
        store: a path of an SQLite file, or an open store that several clients share;
            without one the copies live in memory.
        policy: when conversations are pulled; default: at once.
        push: False for a connection that only sends: it keeps no copies.
        window: sends in flight. With 1, order within a conversation holds even where the
            server refuses one send for now and would take the one behind it.
        report: told what nobody awaits; default: the log `trunkline.client`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource,
        user: str,
        endpoint: str,
        store: str | Path | LocalStore | None = None,
        policy: SyncPolicy | None = None,
        push: bool = True,
        window: int = 256,
        encoding: Encoding = MESSAGEPACK,
        dialer: Dialer | None = None,
        clock: Clock | None = None,
        randomness: random.Random | None = None,
        report: Report | None = None,
        reconnect_first_seconds: float = 0.5,
        reconnect_most_seconds: float = 30.0,
    ) -> None:
        self.user = UserId(user)
        self.endpoint = EndpointId(endpoint)
        self._token = token
        self._dialer = dialer or WebSocketDialer(url)
        self._policy = policy or AtOnce()
        self._clock: Clock = clock or SystemClock()
        self._random = randomness or random.SystemRandom()
        self._report = report or _log_report
        self._owns_store = store is None or isinstance(store, str | Path)
        self._store: LocalStore
        if store is None:
            self._store = MemoryStore()
        elif isinstance(store, str | Path):
            self._store = SqliteStore(store)
        else:
            self._store = store
        self._settings = Settings(
            encoding=encoding,
            window=window,
            push=push,
            agent="trunkline-python",
            first_seconds=reconnect_first_seconds,
            most_seconds=reconnect_most_seconds,
        )
        self._last_id_ms = 0
        self._running: _Running | None = None

    # --- life -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            handle = await self._store.open(self.user, self.endpoint)
            endpoint = Endpoint(self.user, self.endpoint, handle, await handle.load(), self._report)
        except BaseException:
            if self._owns_store:
                await self._store.close()
            raise
        driver = Driver(
            endpoint,
            self._dialer,
            self._token,
            self._policy,
            self._settings,
            self._clock,
            self._random.random,
        )
        tasks = asyncio.TaskGroup()
        await tasks.__aenter__()
        self._running = _Running(endpoint, driver, tasks, tasks.create_task(driver.run()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        running = self._live()
        try:
            await running.driver.stop()
        finally:
            running.task.cancel()
            try:
                # Only a cancellation is the group's business: an error of the application's
                # own code is to leave as it is, not wrapped in a group.
                if isinstance(error, asyncio.CancelledError):
                    await running.tasks.__aexit__(kind, error, traceback)
                else:
                    await running.tasks.__aexit__(None, None, None)
            finally:
                self._running = None
                try:
                    await running.endpoint.close()
                finally:
                    if self._owns_store:
                        await self._store.close()

    def _live(self) -> "_Running":
        if self._running is None:
            raise RuntimeError("The client is used outside of its `async with` block.")
        return self._running

    @property
    def _endpoint(self) -> Endpoint:
        return self._live().endpoint

    # --- sending --------------------------------------------------------------------

    async def send(
        self,
        conversation: str,
        body: str,
        *,
        content_type: str = TEXT,
        refers_to: int = 0,
        id: str | None = None,
    ) -> SentMessage:
        """Sends a message and returns once it is stored; raises why it never will be.

        It is resent until then, also by the next run of this endpoint if the local store
        is a file; a cancelled wait does not take it back.
        """
        return await self._enqueue(
            Send(
                self._id(id),
                body,
                ConversationId(conversation),
                content_type=content_type,
                refers_to=Seq(refers_to),
            )
        )

    async def send_json(self, conversation: str, value: Any, **options: Any) -> SentMessage:
        """Sends any JSON value; options as for `send`."""
        body = msgspec.json.encode(value).decode()
        return await self.send(conversation, body, content_type=JSON, **options)

    async def send_to(
        self,
        user: str,
        body: str,
        *,
        name: str | None = None,
        content_type: str = TEXT,
        id: str | None = None,
    ) -> SentMessage:
        """Sends to a user: in the single conversation of the two, made by the first send."""
        frame = Send(self._id(id), body, None, UserId(user), content_type=content_type, name=name)
        return await self._enqueue(frame)

    async def post(
        self,
        conversation: str | None,
        body: str,
        *,
        to: str | None = None,
        content_type: str = TEXT,
        refers_to: int = 0,
        id: str | None = None,
    ) -> Posted:
        """Returns once the message is durable in the outbox; await the result for its ack."""
        posted = self._enqueue(
            Send(
                self._id(id),
                body,
                None if conversation is None else ConversationId(conversation),
                None if to is None else UserId(to),
                content_type=content_type,
                refers_to=Seq(refers_to),
            )
        )
        await self._endpoint.save()
        return posted

    async def create(
        self,
        conversation: str,
        users: Sequence[str] = (),
        *,
        name: str | None = None,
        id: str | None = None,
    ) -> SentMessage:
        """Creates a group; the creator is a member without being named."""
        named = [UserId(user) for user in users]
        frame = Create(self._id(id), ConversationId(conversation), named, name)
        return await self._enqueue(frame)

    async def add(
        self, conversation: str, users: Sequence[str], *, id: str | None = None
    ) -> SentMessage:
        """Adds members to a group."""
        named = [UserId(user) for user in users]
        return await self._enqueue(Add(self._id(id), ConversationId(conversation), named))

    async def remove(
        self, conversation: str, users: Sequence[str], *, id: str | None = None
    ) -> SentMessage:
        """Removes members from a group."""
        named = [UserId(user) for user in users]
        return await self._enqueue(Remove(self._id(id), ConversationId(conversation), named))

    async def leave(self, conversation: str, *, id: str | None = None) -> SentMessage:
        """Leaves a group."""
        return await self._enqueue(Leave(self._id(id), ConversationId(conversation)))

    async def rename(self, conversation: str, name: str, *, id: str | None = None) -> SentMessage:
        """Gives a group another name."""
        return await self._enqueue(Rename(self._id(id), ConversationId(conversation), name))

    async def wait_sent(self) -> None:
        """Returns once the outbox is empty."""
        await self._endpoint.emptied.wait()
        self._endpoint.raise_failure()

    def _enqueue(self, frame: Writing) -> Posted:
        endpoint = self._endpoint
        endpoint.raise_failure()
        if len(endpoint.outbox) >= OUTBOX_MAX:
            raise Overloaded("The outbox is full: wait for acknowledgements first.")
        posted = endpoint.outbox.post(frame)
        endpoint.emptied.clear()
        endpoint.wake()
        return posted

    def _id(self, given: str | None) -> ClientMessageId:
        if given is not None:
            return ClientMessageId(given)
        # Ids of one sender rise, even where the clock does not: see core.ids.uuid7.
        self._last_id_ms = max(self._clock.now_ms(), self._last_id_ms + 1)
        return uuid7(self._last_id_ms, self._random.getrandbits(74))

    # --- reading --------------------------------------------------------------------

    async def messages(
        self, *, from_start: bool = False, own: bool = False
    ) -> AsyncGenerator[Message, None]:
        """Messages as they come, in order within their conversation, each once.

        It starts where the local store stood when the client was entered (what came while
        the endpoint was away is news); for an endpoint without a past, after its first
        sync. `from_start`: with all that the copies hold. `own`: with the user's own.
        """
        async for message in self.entries(from_start=from_start):
            if message.kind is Kind.MESSAGE and (own or message.sender != self.user):
                yield message

    async def entries(self, *, from_start: bool = False) -> AsyncGenerator[Message, None]:
        """Like `messages`, with the user's own and with joins, leaves and renames."""
        endpoint = self._endpoint
        feed = Feed(endpoint, from_start=from_start, bound=LIVE_ENTRIES_MAX)
        endpoint.readers.append(feed)
        try:
            async for conversation, entry in feed.entries():
                yield Message.of(conversation, entry)
        finally:
            endpoint.readers.remove(feed)

    def conversations(self) -> list[ConversationInfo]:
        """All conversations that this endpoint knows of, left ones too."""
        return [_info(held) for held in self._endpoint.replica.held.values()]

    def conversation(self, conversation: str) -> ConversationInfo:
        """One conversation; raises `NotMember` if this endpoint does not know it."""
        return _info(self._held(conversation))

    async def open(self, conversation: str) -> ConversationInfo:
        """Pulls a conversation whatever the policy, keeps it complete; returns when it is."""
        endpoint = self._endpoint
        if (known := endpoint.replica.held.get(ConversationId(conversation))) is None:
            endpoint.replica.want_sync()
            await self._act_and_wait()
            known = self._held(conversation)
        if not known.opened or known.last < known.head:
            endpoint.replica.open(known)
            await self._act_and_wait()
        return _info(known)

    async def history(self, conversation: str, *, after: int = 0, up_to: int = 0) -> list[Message]:
        """Entries after+1..up_to (0: the head), at most the view's; pulled if they are not here.

        `after` before the view's start means its start. Raises `InvalidRange` for a range
        that ends past the head.
        """
        held = self._endpoint.replica.held.get(ConversationId(conversation))
        if held is None or held.last < (up_to or held.head):
            await self.open(conversation)
            held = self._held(conversation)
        last = Seq(up_to or held.last)
        if last > held.last:
            raise InvalidRange(f"Conversation {conversation!r} ends at {held.last}.")
        position = Seq(max(after, held.first - 1))
        entries = await self._range(held.conversation, position, last)
        return [Message.of(held.conversation, entry) for entry in entries]

    async def mark(self, conversation: str, seq: int | None = None) -> None:
        """Moves the read marker to `seq` (default: the newest entry held), only forward.

        The server is told in the background.
        """
        held = self._held(conversation)
        to = Seq(held.last if seq is None else seq)
        if to > held.last:
            raise AheadOfHead(f"This endpoint holds conversation {conversation!r} to {held.last}.")
        endpoint = self._endpoint
        seen: list[Entry] = []
        while to > (before := held.marker):
            seen = await self._range(held.conversation, max(before, Seq(held.first - 1)), to)
            if held.marker == before:  # else it moved meanwhile
                break
        else:
            return
        if self._held(conversation) is not held:  # the server has another store meanwhile
            return
        read = sum(entry.kind is Kind.MESSAGE for entry in seen)
        endpoint.replica.mark(held.conversation, to, read)
        endpoint.marks[held.conversation] = to
        endpoint.wake()

    async def wait_synced(self) -> None:
        """Returns once a sync is done and all that the policy wants at once was pulled."""
        if not self._settings.push:
            raise NotAllowed("A client with push=False keeps no copies.")
        endpoint = self._endpoint
        endpoint.raise_failure()
        await endpoint.settled.wait()
        endpoint.raise_failure()

    def proof(self, conversation: str) -> Proof:
        """What the copy holds and its digest: compare it with the server's (I14)."""
        held = self._held(conversation)
        return Proof(held.first, held.last, held.digest)

    @property
    def counters(self) -> Counters:
        """What this endpoint saw since it was entered."""
        return self._endpoint.replica.counters

    # --- what was set apart -----------------------------------------------------------

    async def set_apart(self) -> list[SetApart]:
        """What this endpoint keeps that is not, or no more, in the server's store.

        After the server was given another store, or an older state of its own, what differs is
        moved there: it is shown nowhere else. `StoreReplaced` is reported then.
        """
        return [
            SetApart(a.number, a.store, a.copy.conversation, a.copy.name, a.copy.first, a.copy.last)
            for a in await self._endpoint.apart()
        ]

    async def read_apart(self, one: SetApart) -> list[Message]:
        """The entries of something set apart."""
        entries = await self._endpoint.read_apart(one.number)
        return [Message.of(one.conversation, entry) for entry in entries]

    async def forget_apart(self, those: Sequence[SetApart]) -> None:
        """Deletes what was set apart."""
        await self._endpoint.forget([one.number for one in those])

    def drop_connection(self) -> None:
        """Cuts the connection as a bad network does; the client comes back by itself."""
        self._live().driver.drop()

    def _held(self, conversation: str) -> Held:
        held = self._endpoint.replica.held.get(ConversationId(conversation))
        if held is None:
            raise NotMember(f"This endpoint knows of no conversation {conversation!r}.")
        return held

    async def _act_and_wait(self) -> None:
        self._endpoint.settled.clear()
        self._endpoint.wake()
        await self.wait_synced()

    async def _range(self, conversation: ConversationId, after: Seq, up_to: Seq) -> list[Entry]:
        """Entries of a copy, page by page, so that other work of the loop goes on between."""
        entries: list[Entry] = []
        while after < up_to:
            page_end = Seq(min(up_to, after + _PAGE_ENTRIES))
            entries += await self._endpoint.read(conversation, after, page_end)
            after = page_end
        return entries


class _Running:
    """What exists while a client is entered."""

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        tasks: asyncio.TaskGroup,
        task: asyncio.Task[None],
    ) -> None:
        self.endpoint = endpoint
        self.driver = driver
        self.tasks = tasks
        self.task = task


def _info(held: Held) -> ConversationInfo:
    return ConversationInfo(
        held.conversation,
        held.kind,
        held.name,
        held.first,
        held.last,
        held.head,
        held.unread,
        held.marker,
        held.left,
        held.shredded,
    )


def _log_report(error: TrunklineError) -> None:
    _log.warning("%s: %s", error.code, error.detail)
