"""The unruly network does only what networks do: what it passes on, and what it may not touch."""

import asyncio
from random import Random

import pytest

from trunkline.client.link import ABNORMAL, Link, Receiver
from trunkline.model import ClientMessageId, ConversationId
from trunkline.replay.chaos import Unruliness, UnrulyDialer
from trunkline.wire.encoding import MESSAGEPACK, Encoding
from trunkline.wire.frames import Acked, Push, Send

SENDS = [MESSAGEPACK.encode(Send(ClientMessageId(f"{n:04d}"), "text")) for n in range(200)]
PUSHES = [MESSAGEPACK.encode(Push(ConversationId("tea"), n, [])) for n in range(200)]
ANSWERS = [MESSAGEPACK.encode(Acked([])) + bytes([n]) for n in range(200)]
CALM = Unruliness(0, 0, 0, 0, 0, 0)


class Wire:
    """Stands for the server's end and for the client: what arrived at each, in order."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.arrived: list[bytes] = []
        self.closes: list[int] = []
        self.client_closed: list[int] = []
        self.receiver: Receiver | None = None

    async def dial(self, receiver: Receiver, encoding: Encoding) -> Link:
        self.receiver = receiver
        return self

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def close(self, code: int) -> None:
        self.closes.append(code)
        assert self.receiver is not None
        self.receiver.link_closed(code, "")

    def frame_arrived(self, frame: bytes) -> None:
        self.arrived.append(frame)

    def link_closed(self, code: int, reason: str) -> None:
        self.client_closed.append(code)


async def unruly(unruliness: Unruliness) -> tuple[Wire, UnrulyDialer, Link]:
    wire = Wire()
    dialer = UnrulyDialer(wire, Random(1), unruliness)
    return wire, dialer, await dialer.dial(wire, MESSAGEPACK)


def arrive(wire: Wire, frames: list[bytes]) -> None:
    assert wire.receiver is not None
    for frame in frames:
        wire.receiver.frame_arrived(frame)


async def everything_late_has_come(dialer: UnrulyDialer) -> None:
    """Late frames come within `late_seconds`: their timers are due before this one."""
    loop = asyncio.get_running_loop()
    all_due = asyncio.Event()
    loop.call_later(dialer.unruliness.late_seconds, all_due.set)
    await all_due.wait()


async def test_without_unruliness_everything_passes_as_it_is() -> None:
    wire, _, link = await unruly(CALM)
    for frame in SENDS:
        link.send(frame)
    arrive(wire, PUSHES + ANSWERS)
    assert wire.sent == SENDS
    assert wire.arrived == PUSHES + ANSWERS


async def test_sends_are_late_and_doubled_but_stay_in_order() -> None:
    wire, dialer, link = await unruly(Unruliness(0, 0.3, 0, 0, 0.3, 0.01))
    for frame in SENDS:
        link.send(frame)
    await everything_late_has_come(dialer)
    assert len(wire.sent) == len(SENDS) + dialer.havoc.doubled_sends > len(SENDS)
    assert list(dict.fromkeys(wire.sent)) == SENDS
    assert wire.sent == sorted(wire.sent)


async def test_pushes_are_lost_doubled_and_late_but_answers_stay_whole_and_in_order() -> None:
    wire, dialer, _ = await unruly(Unruliness(0, 0, 0.2, 0.2, 0.2, 0.01))
    arrive(wire, [frame for pair in zip(PUSHES, ANSWERS, strict=True) for frame in pair])
    await everything_late_has_come(dialer)
    pushed = [frame for frame in wire.arrived if frame in PUSHES]
    havoc = dialer.havoc
    assert [frame for frame in wire.arrived if frame in ANSWERS] == ANSWERS
    assert len(pushed) == len(PUSHES) - havoc.lost_pushes + havoc.doubled_pushes
    assert min(havoc.lost_pushes, havoc.doubled_pushes, havoc.late) > 0
    assert pushed != sorted(pushed)


@pytest.mark.parametrize("from_server", [False, True])
async def test_a_dropped_connection_ends_at_one_frame_and_is_told_once(from_server: bool) -> None:
    wire, dialer, link = await unruly(Unruliness(0.05, 0, 0, 0.5, 0.5, 0.01))
    if from_server:
        arrive(wire, ANSWERS)
    else:
        for frame in SENDS:
            link.send(frame)
    passed = list(wire.sent), list(wire.arrived)
    await everything_late_has_come(dialer)
    link.send(SENDS[0])
    arrive(wire, PUSHES)
    await everything_late_has_come(dialer)
    assert dialer.havoc.dropped_connections == 1
    assert wire.closes == wire.client_closed == [ABNORMAL]
    assert len(wire.arrived) == len(passed[1]) < len(ANSWERS)
    assert len(wire.sent) <= len(SENDS)


async def test_a_link_that_the_client_closes_first_sends_what_was_held_back() -> None:
    wire, _, link = await unruly(Unruliness(0, 0, 0, 0, 1, 60))
    link.send(SENDS[0])
    assert wire.sent == []
    link.close(1000)
    assert wire.sent == SENDS[:1]
    assert wire.client_closed == [1000]
