"""The proxy's filter loses whole messages and nothing else, wherever the network cuts."""

from __future__ import annotations

import random

import pytest
from lossy_inbox import Weather

BEFORE = b"+OK\r\n$5\r\nhello\r\n"
SUBSCRIBED = b"*3\r\n$10\r\nssubscribe\r\n$2\r\nin\r\n:1\r\n"
MESSAGES = [
    b"*3\r\n$8\r\nsmessage\r\n$2\r\nin\r\n$4\r\n%s\r\n" % body for body in (b"\r\n*1", b"two2")
]
PONG = b"+PONG\r\n"
STREAM = BEFORE + SUBSCRIBED + MESSAGES[0] + PONG + MESSAGES[1]
REST = BEFORE + SUBSCRIBED + PONG


def passed(weather: Weather, cut: int) -> bytes:
    """What goes on of a stream that comes in two pieces."""
    inbox = weather.inbox()
    return inbox(STREAM[:cut]) + inbox(STREAM[cut:])


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_messages_alone_are_lost(cut: int) -> None:
    weather = Weather(random.Random(1))
    assert sorted(passed(weather, cut)) == sorted(STREAM)
    weather.loss = 1.0
    assert passed(weather, cut) == REST
    assert weather.dropped == len(MESSAGES)


def test_late_messages_come_in_their_order_with_what_follows() -> None:
    weather = Weather(random.Random(1))
    weather.late = True
    inbox = weather.inbox()
    assert inbox(STREAM) == REST
    weather.late = False
    assert inbox(PONG) == PONG + b"".join(MESSAGES)


def test_other_connections_are_left_alone() -> None:
    weather = Weather(random.Random(1))
    weather.loss = 1.0
    assert weather.inbox()(BEFORE + MESSAGES[0]) == BEFORE + MESSAGES[0]
