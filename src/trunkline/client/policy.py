"""Decides when a conversation that lacks entries is pulled: the sync policies."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from trunkline.model import ConversationId, ConversationKind


class Behind(msgspec.Struct, frozen=True, gc=False):
    """A conversation of which the endpoint lacks entries.

    `missing` is their number; `last_time_ms` the time of the newest entry held (0: none);
    `opened` whether the application has it open.
    """

    conversation: ConversationId
    kind: ConversationKind
    missing: int
    last_time_ms: int
    unread: int
    opened: bool


class SyncPolicy(Protocol):
    """Chooses what is pulled now; what is not chosen is offered again later."""

    def choose(self, behind: Sequence[Behind], *, idle: bool) -> Sequence[ConversationId]:
        """The conversations to pull, most urgent first. `idle`: nothing else is to do."""
        ...


def _opened(behind: Sequence[Behind]) -> list[ConversationId]:
    return [one.conversation for one in behind if one.opened]


class AtOnce:
    """Everything at once, what is open first."""

    def choose(self, behind: Sequence[Behind], *, idle: bool) -> Sequence[ConversationId]:
        rest = [one.conversation for one in behind if not one.opened]
        return _opened(behind) + rest


class OnOpen:
    """Only what the application opens."""

    def choose(self, behind: Sequence[Behind], *, idle: bool) -> Sequence[ConversationId]:
        return _opened(behind)


class WhenIdle:
    """What is open at once, the rest a few at a time when nothing else is to do."""

    def __init__(self, at_a_time: int = 8) -> None:
        self._at_a_time = at_a_time

    def choose(self, behind: Sequence[Behind], *, idle: bool) -> Sequence[ConversationId]:
        opened = _opened(behind)
        if opened or not idle:
            return opened
        return [one.conversation for one in behind[: self._at_a_time]]


class Recent:
    """What is open, and up to `conversations` others, the newest first; the rest on opening."""

    def __init__(self, conversations: int) -> None:
        self._room = conversations
        self._kept: set[ConversationId] = set()

    def choose(self, behind: Sequence[Behind], *, idle: bool) -> Sequence[ConversationId]:
        chosen = _opened(behind)
        closed = [one for one in behind if not one.opened]
        for one in sorted(closed, key=lambda one: one.last_time_ms, reverse=True):
            if one.conversation not in self._kept:
                if len(self._kept) >= self._room:
                    continue
                self._kept.add(one.conversation)
            chosen.append(one.conversation)
        return chosen
