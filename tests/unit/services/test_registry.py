"""What a list of watchers is worth, whoever comes and goes while it is read (I13)."""

from __future__ import annotations

import msgspec

from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    EndpointId,
    Member,
    Seq,
    UserId,
)
from trunkline.services.registry import Connection, Registry
from trunkline.wire.close import Close
from trunkline.wire.encoding import MESSAGEPACK

KEY = ConversationKey(1)
ANN, BEN = UserId("ann"), UserId("ben")


class NoSocket:
    encoding = MESSAGEPACK

    def write(self, frame: bytes) -> None:
        """Nobody reads it."""

    def close(self, close: Close, reason: str) -> None:
        """Nobody is there."""

    def page_bytes(self, most: int) -> int:
        """All of it: every link is fast."""
        return most

    async def drained(self) -> None:
        """Always."""


def row(version: int, head: int = 9) -> Conversation:
    return Conversation(
        KEY, ConversationId("group"), ConversationKind.GROUP, b"", Seq(head),
        membership_version=version,
    )  # fmt: skip


def connected(registry: Registry, user: UserId, *, loaded: bool = True) -> Connection:
    connection = Connection("c", user, EndpointId("e"), NoSocket(), push=True)
    registry.attach(connection)
    if loaded:
        registry.loaded(connection)
    return connection


def version_of(registry: Registry) -> int:
    watchers = registry.watched(KEY)
    assert watchers is not None
    return watchers.version


def test_a_list_is_worth_no_more_than_the_oldest_row_that_went_into_it() -> None:
    """I13: who was let in by a row read late may have been removed since."""
    registry = Registry()
    registry.watch(connected(registry, ANN), row(5))
    registry.watch(connected(registry, BEN), row(3))
    assert version_of(registry) == 3


def test_a_list_read_anew_lets_out_who_is_gone_and_lets_in_who_came() -> None:
    """I13."""
    registry = Registry()
    ann, ben = connected(registry, ANN), connected(registry, BEN)
    registry.watch(ann, row(1), Seq(1))
    members = {ANN: Member(ANN, Seq(1), left_at=Seq(5)), BEN: Member(BEN, Seq(4))}
    assert registry.let_in(row(3), members) == [ann, ben]
    assert list(registry.watchers(KEY)) == [ben]
    assert version_of(registry) == 3


def test_who_is_removed_while_they_load_does_not_watch_by_what_was_loaded() -> None:
    """I13: also if only the list read anew knows of the removal."""
    for removed in (True, False):
        registry = Registry()
        ann, ben = connected(registry, ANN), connected(registry, BEN, loaded=False)
        registry.watch(ann, row(1), Seq(1))
        gone = {ANN: Member(ANN, Seq(1)), BEN: Member(BEN, Seq(1), left_at=Seq(5))}
        if removed:
            registry.unwatch(ben, KEY, Seq(5))
        else:
            registry.let_in(row(2), gone)
        registry.watch_loaded(ben, [(row(1), Member(BEN, Seq(1)))])
        registry.loaded(ben)
        assert list(registry.watchers(KEY)) == [ann]


def test_an_old_removal_does_not_end_a_view_that_began_behind_it() -> None:
    registry = Registry()
    ben = connected(registry, BEN)
    registry.watch(ben, row(4), Seq(7))
    registry.unwatch(ben, KEY, Seq(5))
    assert list(registry.watchers(KEY)) == [ben]
    registry.unwatch(ben, KEY, Seq(8))
    assert not list(registry.watchers(KEY))


def test_who_is_removed_between_two_portions_of_what_is_loaded_does_not_watch() -> None:
    """I13."""
    registry = Registry()
    ben = connected(registry, BEN, loaded=False)
    registry.watch_loaded(ben, [])
    registry.unwatch(ben, KEY, Seq(7))
    registry.watch_loaded(ben, [(row(1), Member(BEN, Seq(1)))])
    registry.loaded(ben)
    assert not list(registry.watchers(KEY))


def test_one_who_watched_very_much_leaves_step_by_step() -> None:
    registry = Registry()
    ann, ben = connected(registry, ANN), connected(registry, BEN)
    registry.watch(ann, row(1))
    for number in range(1_200):
        registry.watch(ben, msgspec.structs.replace(row(1), key=ConversationKey(number)))
    registry.detach(ben)
    assert not registry.of_user(BEN)
    assert registry.count == 1
    assert registry.leaves.is_set()
    assert sum(1 for _ in registry.let_go()) > 2
    assert registry.keys() == [KEY]
    assert list(registry.watchers(KEY)) == [ann]
