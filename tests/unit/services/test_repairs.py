"""What one database does not answer holds up no repair of what stands in another."""

from __future__ import annotations

import asyncio

import pytest
from torn_hot import Trouble, conversation_on, user_on
from two_workers import ANN, CID, A, B, Pair, Peer, tell, until

from trunkline.model import ClientMessageId, ConversationId, Seq
from trunkline.wire.frames import Create, Notice, Push, Remove, Send

AWAY, THERE = 0, 1
LOST, SOUND = conversation_on(AWAY), conversation_on(THERE)
BEN = user_on(THERE, "ben")
REPAIRED_SECONDS = 10.0
"""A beat, a comparison, and one more: less than a database that is silent is waited for."""

both_troubles = pytest.mark.parametrize("trouble", ["dead", "silent"])


async def begun(pair: Pair) -> tuple[Peer, Peer]:
    """Ann at one worker, Ben at the other, with a group of theirs and Cid's in each database."""
    ann = await pair.connect(A, ANN)
    for group in (LOST, SOUND):
        await ann.act(Create(ClientMessageId(f"create {group}"), group, [BEN, CID]))
    return ann, await pair.connect(B, BEN)


async def say(ann: Peer, group: ConversationId, number: int) -> None:
    await ann.act(Send(ClientMessageId(f"{group} {number}"), "hello", group))


def told_of(peer: Peer, group: ConversationId) -> list[Notice]:
    return [f for f in peer.frames if isinstance(f, Notice) and f.conversation == group]


def pushed(peer: Peer, group: ConversationId) -> list[Seq]:
    frames = [f for f in peer.frames if isinstance(f, Push) and f.conversation == group]
    return [entry.seq for frame in frames for entry in frame.entries]


@both_troubles
def test_a_lost_push_is_repaired_while_another_database_is_away(trouble: Trouble) -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await begun(pair)
        pair.torn.away[AWAY] = trouble
        pair.hub.lose_next = 1
        await say(ann, SOUND, 1)
        await until(lambda: told_of(ben, SOUND), REPAIRED_SECONDS)
        assert not told_of(ben, LOST)

    tell(story, torn=True)


@both_troubles
def test_what_was_lost_is_repaired_once_its_database_is_back(trouble: Trouble) -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await begun(pair)
        pair.hub.lose_next = 1
        await say(ann, LOST, 1)
        pair.torn.away[AWAY] = trouble
        await asyncio.sleep(120.0)
        assert not told_of(ben, LOST)
        pair.torn.away.clear()
        await until(lambda: told_of(ben, LOST), 30.0)

    tell(story, torn=True)


@both_troubles
def test_frames_behind_a_removal_are_shown_while_another_database_is_away(
    trouble: Trouble,
) -> None:
    """Given a removal that Ben's worker did not hear of, in both databases."""

    async def story(pair: Pair) -> None:
        ann, ben = await begun(pair)
        for group in (LOST, SOUND):
            pair.hub.lose_next = 1
            await ann.act(Remove(ClientMessageId(f"remove {group}"), group, [CID]))
        ben.frames.clear()
        pair.torn.away[AWAY], pair.torn.fails = trouble, frozenset({"read"})
        for number in range(3):
            await say(ann, LOST, number)
            await say(ann, SOUND, number)
        await until(lambda: told_of(ben, SOUND) or pushed(ben, SOUND), REPAIRED_SECONDS)
        await say(ann, SOUND, 3)
        await until(lambda: pushed(ben, SOUND)[-1:] == [6], REPAIRED_SECONDS)

    tell(story, torn=True)


@both_troubles
def test_who_joined_unheard_is_pushed_while_another_database_is_away(trouble: Trouble) -> None:
    """Given a list that changed in one database, by a conversation that stands in it, too."""

    async def story(pair: Pair) -> None:
        ann, ben = await begun(pair)
        late = conversation_on(THERE, "late")
        elsewhere = conversation_on(AWAY, "elsewhere")
        pair.hub.lose_next = 2
        await ann.act(Create(ClientMessageId("elsewhere"), elsewhere, [BEN]))
        await ann.act(Create(ClientMessageId("late"), late, [BEN]))
        pair.torn.away[AWAY] = trouble
        await say(ann, SOUND, 1)
        await until(lambda: told_of(ben, late), REPAIRED_SECONDS)
        await say(ann, late, 1)
        await until(lambda: pushed(ben, late))
        pair.torn.away.clear()
        await until(lambda: told_of(ben, elsewhere), 60.0)

    tell(story, torn=True)


@both_troubles
@pytest.mark.parametrize("of_list", [AWAY, THERE], ids=["list away", "list there"])
def test_who_connects_is_pushed_what_can_be_and_the_rest_once_its_database_is_back(
    trouble: Trouble, of_list: int
) -> None:
    """Given one database away, with the user's list in it or without."""
    user = user_on(of_list, "dan")

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        for group in (LOST, SOUND):
            await ann.act(Create(ClientMessageId(f"create {group}"), group, [user]))
        pair.torn.away[AWAY] = trouble
        dan = await pair.connect(B, user)
        await say(ann, SOUND, 1)
        if of_list == THERE:
            await until(lambda: pushed(dan, SOUND), REPAIRED_SECONDS)
        pair.torn.away.clear()
        await until(lambda: told_of(dan, LOST), 60.0)
        await say(ann, LOST, 1)
        await until(lambda: pushed(dan, LOST))
        await say(ann, SOUND, 2)
        await until(lambda: 3 in pushed(dan, SOUND))

    tell(story, torn=True)
