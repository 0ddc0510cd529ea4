"""A small server in memory, with faults to order, that clients reach over a network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from trunkline.client import Client, Message
from trunkline.client.link import ABNORMAL, Receiver
from trunkline.core.digest import hash_entry, hasher, to_hex, total, vector_digest
from trunkline.core.ids import single_conversation_id
from trunkline.errors import BY_CODE, Unreachable
from trunkline.model import (
    JSON,
    NO_SEQ,
    ConversationId,
    ConversationKind,
    Entry,
    Kind,
    Seq,
    StoreLife,
    UserId,
)
from trunkline.wire.close import Close
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import (
    Ack,
    Acked,
    Changed,
    ClientFrame,
    Confirm,
    Create,
    Done,
    Error,
    Goodbye,
    Hello,
    Leave,
    Limits,
    Mark,
    Notice,
    Pull,
    Pulled,
    Push,
    Refresh,
    Run,
    Send,
    ServerFrame,
    Sync,
    Synced,
    Welcome,
)

LIMITS = Limits(
    body_bytes=12_288,
    frame_bytes=65_536,
    group_members=10_000,
    users_per_operation=100,
    open_requests=16,
    sends_per_second=0.0,
    send_burst=1,
)


NOW_MS = 1_000_000


@dataclass
class Conversation:
    """What the server holds of a conversation; `first` is where a user's view starts."""

    id: ConversationId
    kind: ConversationKind
    members: set[UserId]
    name: str | None = None
    entries: list[Entry] = field(default_factory=list)
    known: dict[tuple[UserId, str], Seq] = field(default_factory=dict)
    first: dict[UserId, Seq] = field(default_factory=dict)
    version: int = 1
    shredded: bool = False

    @property
    def key(self) -> bytes:
        return self.id.encode()[:32].ljust(32, b"-")

    def digest(self, first: Seq) -> str:
        entry_hash = hasher(self.id, self.key)
        return to_hex(total(hash_entry(e, entry_hash) for e in self.entries[first - 1 :]))


class Socket:
    """The server's and the network's side of one link."""

    def __init__(self, server: Server, receiver: Receiver, encoding: Encoding) -> None:
        self.server = server
        self.receiver = receiver
        self.encoding = encoding
        self.hello: Hello | None = None
        self.user = UserId("")
        self.open = True

    def send(self, frame: bytes) -> None:
        if self.open:
            asyncio.get_running_loop().call_soon(self._take, frame)

    def close(self, code: int) -> None:
        asyncio.get_running_loop().call_soon(self.cut, code)

    def _take(self, frame: bytes) -> None:
        if self.open:
            self.server.take(self, self.encoding.decode_client(frame))

    def answer(self, frame: ServerFrame) -> None:
        """Brings a frame to the client in the loop's next turn, unless the link is cut before."""
        asyncio.get_running_loop().call_soon(self._bring, self.encoding.encode(frame))

    def _bring(self, frame: bytes) -> None:
        if self.open:
            self.receiver.frame_arrived(frame)

    def cut(self, code: int = ABNORMAL) -> None:
        if self.open:
            self.open = False
            self.server.sockets.remove(self)
            self.receiver.link_closed(code, "")


class Server:
    """Speaks the protocol; the attributes below `faults` order what goes wrong."""

    def __init__(self) -> None:
        self.conversations: dict[ConversationId, Conversation] = {}
        self.sockets: list[Socket] = []
        self.received: list[ClientFrame] = []
        self.offsets: dict[tuple[UserId, str], dict[ConversationId, Seq]] = {}
        self.markers: dict[tuple[UserId, ConversationId], Seq] = {}
        self.life: StoreLife | None = None
        self.page_entries = 100
        self.page_conversations = 100
        # faults
        self.down = False
        self.dials = 0
        self.lose_pushes = False
        self.double_pushes = False
        self.swallow_acks = 0
        self.refuse_sends: list[str] = []
        self.change_pulled: Callable[[Entry], Entry] | None = None
        self.before_answer: Callable[[ClientFrame], None] = lambda _: None
        self.tokens: set[str] | None = None

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Socket:
        self.dials += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unreachable
        socket = Socket(self, receiver, encoding)
        self.sockets.append(socket)
        return socket

    def replace_store(self, life: StoreLife) -> None:
        """Another store, with nothing in it, answers from now on."""
        self.life = life
        self.conversations.clear()
        self.offsets.clear()
        self.markers.clear()

    def cut(self, code: int = ABNORMAL) -> None:
        """Every connection ends."""
        for socket in list(self.sockets):
            socket.cut(code)

    # --- what others do -----------------------------------------------------------------

    def create(self, name: str, *users: str) -> Conversation:
        members = {UserId(user) for user in users}
        one = Conversation(ConversationId(name), ConversationKind.GROUP, members)
        self.conversations[one.id] = one
        self._append(one, UserId(users[0]), '{"users":[]}', Kind.CREATED, JSON)
        return one

    def say(self, conversation: str, sender: str, *bodies: str) -> None:
        for body in bodies:
            self._append(self.conversations[ConversationId(conversation)], UserId(sender), body)

    def notify(self, conversation: str) -> None:
        one = self.conversations[ConversationId(conversation)]
        one.version += 1
        for socket in self.sockets:
            socket.answer(Notice(one.id))

    def bodies(self, conversation: str) -> list[str]:
        one = self.conversations[ConversationId(conversation)]
        return [entry.body for entry in one.entries if entry.kind is Kind.MESSAGE]

    def frames(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.received if isinstance(frame, kind)]

    # --- the protocol -------------------------------------------------------------------

    def take(self, socket: Socket, frame: ClientFrame) -> None:
        self.received.append(frame)
        self.before_answer(frame)
        if isinstance(frame, Hello):
            self._hello(socket, frame)
        elif isinstance(frame, Sync):
            socket.answer(self._sync(socket, frame))
        elif isinstance(frame, Pull):
            socket.answer(self._pull(socket, frame))
        elif isinstance(frame, Confirm):
            assert socket.hello is not None
            held = self.offsets.setdefault((socket.user, socket.hello.endpoint), {})
            for conversation, seq in frame.offsets.items():
                held[conversation] = max(seq, held.get(conversation, Seq(0)))
            socket.answer(Done(frame.request))
        elif isinstance(frame, Mark):
            self.markers[socket.user, frame.conversation] = frame.seq
            socket.answer(Done(frame.request))
        elif not isinstance(frame, Refresh):
            self._write(socket, frame)

    def _hello(self, socket: Socket, frame: Hello) -> None:
        if self.tokens is not None and frame.token not in self.tokens:
            socket.answer(Error("token_expired", "It has expired."))
            socket.answer(Goodbye("token_expired", "It has expired.", reconnect=False))
            asyncio.get_running_loop().call_soon(socket.cut, Close.TOKEN_EXPIRED)
            return
        socket.hello, socket.user = frame, frame.user or UserId(frame.token)
        until_ms = NOW_MS + 3_600_000
        socket.answer(Welcome(1, socket.user, "c1", NOW_MS, 30.0, until_ms, LIMITS, self.life))

    def _write(self, socket: Socket, frame: Any) -> None:
        if self.refuse_sends and (code := self.refuse_sends.pop(0)):
            refused = BY_CODE[code]
            error = Error(code, refused.advice, refused.retryable, 0.0, frame.id)
            socket.answer(msgspec.structs.replace(error, conversation=frame.conversation))
            return
        one = self._addressed(socket.user, frame)
        if one.shredded:
            socket.answer(Error("conversation_shredded", "Gone.", id=frame.id, conversation=one.id))
            return
        seq = one.known.get((socket.user, frame.id))
        if seq is not None:
            socket.answer(Acked([Ack(frame.id, one.id, seq, duplicate=True)]))
            return
        if isinstance(frame, Send):
            entry = self._append(
                one, socket.user, frame.body, Kind.MESSAGE, frame.content_type, frame.refers_to
            )
        else:
            kind = Kind.LEFT if isinstance(frame, Leave) else Kind.JOINED
            kind = Kind.CREATED if isinstance(frame, Create) else kind
            entry = self._append(one, socket.user, '{"users":[]}', kind, JSON)
        one.known[socket.user, frame.id] = entry.seq
        if self.swallow_acks:
            self.swallow_acks -= 1
        else:
            socket.answer(Acked([Ack(frame.id, one.id, entry.seq, entry.time_ms)]))

    def _addressed(self, user: UserId, frame: Any) -> Conversation:
        if isinstance(frame, Send) and frame.to is not None:
            name = single_conversation_id(user, frame.to)
            if name not in self.conversations:
                self.create(name, user, frame.to).kind = ConversationKind.SINGLE
            return self.conversations[name]
        if isinstance(frame, Create):
            members = {user, *frame.users}
            self.conversations[frame.conversation] = Conversation(
                frame.conversation, ConversationKind.GROUP, members, frame.name
            )
        return self.conversations[frame.conversation]

    def _append(
        self,
        one: Conversation,
        sender: UserId,
        body: str,
        kind: Kind = Kind.MESSAGE,
        content_type: str = "text/plain",
        refers_to: Seq = NO_SEQ,
    ) -> Entry:
        seq = Seq(len(one.entries) + 1)
        entry = Entry(seq, sender, 1_000_000 + seq, body, kind, content_type, refers_to)
        one.entries.append(entry)
        if not self.lose_pushes:
            self.push(one.id, entry)
        return entry

    def push(self, conversation: ConversationId, entry: Entry) -> None:
        """Brings an entry to all members that are connected."""
        one = self.conversations[conversation]
        for socket in self.sockets:
            wanted = socket.hello is not None and socket.hello.push and socket.user in one.members
            if wanted:
                for _ in range(1 + self.double_pushes):
                    socket.answer(Push(one.id, one.version, [entry]))

    def _sync(self, socket: Socket, frame: Sync) -> Synced:
        assert socket.hello is not None
        held = self.offsets.setdefault((socket.user, socket.hello.endpoint), {})
        if frame.vector is not None:
            held = frame.vector
        elif not frame.next and frame.vector_digest != to_hex(vector_digest(held)):
            return Synced(frame.request, vector_wanted=True)
        changed = [
            Changed(
                one.id,
                one.kind,
                Seq(len(one.entries)),
                (first := one.first.get(socket.user, Seq(1))),
                one.digest(first),
                one.key.hex(),
                unread=sum(
                    e.kind is Kind.MESSAGE
                    for e in one.entries[self.markers.get((socket.user, one.id), 0) :]
                ),
                marker=self.markers.get((socket.user, one.id), Seq(0)),
                name=one.name,
                shredded=one.shredded,
            )
            for one in self.conversations.values()
            if socket.user in one.members
            and (len(one.entries) > held.get(one.id, 0) or one.version > frame.cursor)
        ]
        start = int(frame.next or 0)
        end = start + self.page_conversations
        following = str(end) if end < len(changed) else ""
        cursor = max((one.version for one in self.conversations.values()), default=0)
        return Synced(frame.request, cursor, changed[start:end], following, store=self.life)

    def _pull(self, socket: Socket, frame: Pull) -> Pulled | Error:
        asked = [(r.conversation, r.after, r.up_to) for r in frame.ranges]
        if frame.next:
            asked = msgspec.json.decode(frame.next, type=list[tuple[ConversationId, Seq, Seq]])
        runs: list[Run] = []
        left: list[tuple[ConversationId, Seq, Seq]] = []
        room = self.page_entries
        for conversation, after, up_to in asked:
            one = self.conversations.get(conversation)
            if one is None or socket.user not in one.members:
                return Error("not_member", "No member.", request=frame.request)
            if one.shredded:
                return Error("conversation_shredded", "Gone.", request=frame.request)
            end = up_to or Seq(len(one.entries))
            entries = one.entries[after : min(end, after + room)]
            room -= len(entries)
            if entries:
                if self.change_pulled is not None:
                    entries = [self.change_pulled(entry) for entry in entries]
                runs.append(Run(conversation, after, entries))
            if after + len(entries) < end:
                left.append((conversation, Seq(after + len(entries)), end))
        following = msgspec.json.encode(left).decode() if left else ""
        return Pulled(frame.request, runs, following)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client_of(server: Server) -> Callable[..., Client]:
    """Makes clients of the server; user and endpoint first, then any option of `Client`."""

    def make(user: str, endpoint: str = "phone", **options: Any) -> Client:
        options = {"token": user, "dialer": server, "report": lambda _: None, **options}
        return Client(
            "ws://server",
            user=user,
            endpoint=endpoint,
            reconnect_first_seconds=0.01,
            reconnect_most_seconds=0.05,
            **options,
        )

    return make


Eventually = Callable[[Callable[[], bool]], Coroutine[None, None, None]]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds, at most five seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


async def _take(client: Client, count: int, **options: Any) -> list[Message]:
    """The first messages that a reader gets."""
    messages: list[Message] = []
    async with asyncio.timeout(5):
        async for message in client.messages(**options):
            messages.append(message)
            if len(messages) == count:
                break
    return messages


def _assert_proven(client: Client, server: Server, conversation: str) -> None:
    """The copy is the server's, by digest (I14)."""
    proof = client.proof(conversation)
    one = server.conversations[ConversationId(conversation)]
    entry_hash = hasher(one.id, one.key)
    view = one.entries[proof.first - 1 :]
    assert proof.last == len(one.entries)
    assert proof.digest == total(hash_entry(entry, entry_hash) for entry in view)


@pytest.fixture
def take() -> Callable[..., Coroutine[None, None, list[Message]]]:
    """The first messages that a reader gets: `await take(client, count)`."""
    return _take


@pytest.fixture
def assert_proven() -> Callable[[Client, Server, str], None]:
    """Holds a client's copy against the server's by digest (I14)."""
    return _assert_proven
