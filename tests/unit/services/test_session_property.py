"""Whatever bytes and frames come in whatever order, a session answers with known codes only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trunkline.adapters.keyring import KeyringSealer, open_keyring
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.errors import BY_CODE, ProtocolError, Unauthenticated
from trunkline.model import UserId
from trunkline.ports.authenticator import Grant
from trunkline.services.backbone import Backbone, Stores
from trunkline.services.session import ClientSession
from trunkline.services.settings import ServiceSettings
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.loop import SimulatedLoop
from trunkline.wire import frames
from trunkline.wire.close import Close
from trunkline.wire.encoding import JSON, MESSAGEPACK, Encoding

CLIENT_FRAMES = frames.ClientFrame.__args__
OPERATIONS = {"send", "create", "add", "remove", "leave", "rename"}
BODY_BYTES = 64

some_ids = st.one_of(
    st.sampled_from(["a", "b", "g", "h", "single:1:a1:b"]),
    st.text(max_size=70),
    st.sampled_from(["", "\0", "é" * 33]),
)
some_seqs = st.one_of(st.integers(0, 4), st.integers(0, 2**53 - 1))
some_bytes = st.binary(max_size=40)
some_names = st.one_of(st.none(), st.text(max_size=300))
positions = st.one_of(st.just(""), st.text(max_size=12), st.sampled_from(["kZCQ", "kgEB", "AAAA"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "agent": st.text(max_size=8),
    "body": st.text(max_size=BODY_BYTES),
    "claims": st.dictionaries(
        some_ids,
        st.fixed_dictionaries({"seq": some_seqs}, optional={"proof": st.text(max_size=40)}),
        max_size=3,
    ),
    "content_type": st.one_of(st.just("text/plain"), st.text(max_size=130)),
    "conversation": some_ids,
    "cursor": st.one_of(st.integers(0, 5), st.integers(0, 2**53 - 1)),
    "endpoint": some_ids,
    "id": some_ids,
    "mark": st.text(max_size=16),
    "name": some_names,
    "next": positions,
    "offsets": st.dictionaries(some_ids, some_seqs, max_size=3),
    "parts": st.one_of(
        st.none(),
        st.lists(
            st.fixed_dictionaries({"part": st.integers(0, 2**13 - 1), "held": some_bytes}),
            max_size=3,
        ),
    ),
    "push": st.booleans(),
    "range_sums": st.one_of(st.none(), some_bytes, st.just(bytes(2048))),
    "ranges": st.lists(
        st.fixed_dictionaries(
            {"conversation": some_ids, "after": some_seqs}, optional={"up_to": some_seqs}
        ),
        max_size=4,
    ),
    "refers_to": some_seqs,
    "request": st.integers(0, 2**53 - 1),
    "seq": some_seqs,
    "to": some_ids,
    "token": st.sampled_from(["a", "b", "", "?"]),
    "user": st.sampled_from([None, "a", "b"]),
    "users": st.lists(some_ids, max_size=4),
    "vector": st.one_of(st.none(), st.dictionaries(some_ids, some_seqs, max_size=3)),
    "vector_digest": st.one_of(st.just("0" * 32), st.text(max_size=8)),
    "versions": st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3),
}
NULLABLE = {"conversation", "to", "name", "user", "vector", "range_sums", "parts"}


def frames_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Frames of one type that the decoder takes."""
    fields = msgspec.structs.fields(kind)
    tag = msgspec.inspect.type_info(kind).tag  # type: ignore[attr-defined]
    required = {f.name: VALUES[f.name] for f in fields if f.required}
    optional = {f.name: VALUES[f.name] for f in fields if not f.required}
    if kind is frames.Rename:
        required["name"] = st.text(max_size=300)
    return st.fixed_dictionaries({"t": st.just(tag), **required}, optional=optional)


valid_frames = st.one_of([frames_of(kind) for kind in CLIENT_FRAMES])
greetings = st.just({"t": "hello", "token": "a", "endpoint": "e"})
conversations_of_frames = st.builds(
    lambda first, others: [*first, *others],
    st.one_of(st.just([]), greetings.map(lambda frame: [frame])),
    st.lists(valid_frames, max_size=12),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["t", "id", "request", "x"]), inner, max_size=3)
    ),
)


@st.composite
def damaged(draw: st.DrawFn, encoding: Encoding) -> bytes:
    """A valid frame with a few bytes changed, dropped or added."""
    data = bytearray(encoding.encode(draw(valid_frames)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


class PasswordlessAuthenticator:
    """Believes tokens `a` and `b`."""

    def authenticate(self, token: str) -> Grant:
        if token not in ("a", "b"):
            raise Unauthenticated
        return Grant(UserId(token), 2**52)


class RecordingOutlet:
    """Keeps what a session writes; after the close nothing counts, as on a socket."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.frames: list[frames.ServerFrame] = []
        self.closed_with: Close | None = None

    def write(self, frame: bytes) -> None:
        if self.closed_with is None:
            self.frames.append(self.encoding.decode_server(frame))

    def close(self, close: Close, reason: str) -> None:
        assert reason in BY_CODE
        self.closed_with = self.closed_with or close

    def page_bytes(self, most: int) -> int:
        """All of it: every link is fast."""
        return most

    async def drained(self) -> None:
        """A socket that takes everything."""


@functools.cache
def sealer(folder: Path) -> KeyringSealer:
    return open_keyring(folder / "keyring.json", create=True)


async def converse(
    loop: SimulatedLoop, encoding: Encoding, messages: list[bytes], folder: Path
) -> RecordingOutlet:
    """One session, from its first message until everything is answered."""
    clock = SimulatedClock(loop)
    hot = MemoryHotStore(clock)
    stores = Stores(
        hot, hot.tasks, MemoryColdStore(), MemoryCachedTier(clock), sealer(folder),
        PasswordlessAuthenticator(), clock, random.Random(1).getrandbits,
    )  # fmt: skip
    limits = ServiceSettings(
        body_bytes=BODY_BYTES, users_per_operation=3, group_members=4, open_requests=8,
        send_burst=8, sends_per_second=1, sync_page_conversations=1, page_bytes=100,
        ranges_per_pull=3,
    )  # fmt: skip
    backbone = Backbone(stores, limits)
    outlet = RecordingOutlet(encoding)
    async with asyncio.TaskGroup() as group:
        group.create_task(backbone.run())
        session = ClientSession(backbone, outlet, "c1", group.create_task)
        for message in messages:
            session.receive(message)
        await asyncio.sleep(5)
        session.closed()
        assert backbone.registry.count == 0
        backbone.drain()
    return outlet


def run(encoding: Encoding, messages: list[bytes], folder: Path) -> RecordingOutlet:
    loop = SimulatedLoop(1)
    try:
        outlet = loop.run_until_complete(converse(loop, encoding, messages, folder))
        assert not loop.faults
    finally:
        loop.close()
    check_answers(outlet)
    return outlet


def check_answers(outlet: RecordingOutlet) -> None:
    """Every code is known and none is a fault of the server; a goodbye comes with its close."""
    for frame in outlet.frames:
        if isinstance(frame, frames.Error | frames.Goodbye):
            assert frame.code in BY_CODE
            assert frame.code != "internal"
    goodbyes = [frame for frame in outlet.frames if isinstance(frame, frames.Goodbye)]
    assert len(goodbyes) == (outlet.closed_with is not None)
    if goodbyes:
        assert outlet.frames[-1] is goodbyes[0]
        assert outlet.closed_with is not None
        assert goodbyes[0].reconnect == outlet.closed_with.reconnect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


both = pytest.mark.parametrize("encoding", [MESSAGEPACK, JSON], ids=lambda e: e.subprotocol)
in_bounds = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@both
@given(data=st.binary(max_size=200))
@example(data=b"\x81" * 10_000)
@example(data=b"[" * 10_000)
def test_bytes_decode_to_a_frame_or_to_bad_frame(encoding: Encoding, data: bytes) -> None:
    try:
        frame = encoding.decode_client(data)
    except ProtocolError:
        return
    assert encoding.decode_client(encoding.encode(frame)) == frame


@both
@given(value=json_values)
def test_values_of_any_shape_decode_to_a_frame_or_to_bad_frame(
    encoding: Encoding, value: Any
) -> None:
    try:
        data = encoding.encode(value)
    except OverflowError:
        return  # no such value exists in this encoding
    with contextlib.suppress(ProtocolError):
        encoding.decode_client(data)


@both
@given(frame=valid_frames)
def test_a_valid_frame_is_the_same_after_the_wire(
    encoding: Encoding, frame: dict[str, Any]
) -> None:
    decoded = encoding.decode_client(encoding.encode(frame))
    assert encoding.decode_client(encoding.encode(decoded)) == decoded


@both
@in_bounds
@given(st.data())
def test_any_bytes_in_any_order_are_answered_with_known_codes(
    encoding: Encoding, folder: Path, data: st.DataObject
) -> None:
    good = valid_frames.map(encoding.encode)
    some = st.lists(st.one_of(st.binary(max_size=30), damaged(encoding), good), max_size=8)
    hello = encoding.encode({"t": "hello", "token": "a", "endpoint": "e"})
    messages = data.draw(st.one_of(some, some.map(lambda rest: [hello, *rest])))
    run(encoding, messages, folder)


@both
@in_bounds
@given(conversation=conversations_of_frames)
def test_valid_frames_in_any_order_are_each_answered_once(
    encoding: Encoding,
    folder: Path,
    conversation: list[dict[str, Any]],
) -> None:
    for number, frame in enumerate(conversation, 1):
        if frame["t"] in OPERATIONS:
            frame["id"] = frame["id"] or "x" * 65  # an answer to the empty id names nothing
        elif frame["t"] != "hello":
            frame["request"] = number
    outlet = run(encoding, list(map(encoding.encode, conversation)), folder)
    if outlet.closed_with is None:
        asked = [f["id"] for f in conversation if f["t"] in OPERATIONS]
        assert sorted(answered_ids(outlet)) == sorted(asked)
        assert answered_requests(outlet) == {
            f["request"]: 1 for f in conversation if "request" in f
        }


def answered_ids(outlet: RecordingOutlet) -> list[str]:
    acked = [a.id for f in outlet.frames if isinstance(f, frames.Acked) for a in f.acks]
    return acked + [f.id for f in outlet.frames if isinstance(f, frames.Error) and f.id]


def answered_requests(outlet: RecordingOutlet) -> Counter[int]:
    kinds = (frames.Done, frames.Pulled, frames.Synced, frames.Error)
    return Counter(f.request for f in outlet.frames if isinstance(f, kinds) and f.request)
