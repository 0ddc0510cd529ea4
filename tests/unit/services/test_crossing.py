"""What one worker commits reaches those whom another serves, whatever the bus loses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from two_workers import ANN, BEN, CID, GROUP, A, B, Pair, tell, until

from trunkline.core.appending import Decision
from trunkline.core.packets import Frame, Note, Packet, Told
from trunkline.errors import OutcomeUnknown
from trunkline.model import ClientMessageId, ConversationKey, Draft, Seq, WorkerId
from trunkline.ports.hot import Decide
from trunkline.wire.encoding import JSON, MESSAGEPACK
from trunkline.wire.frames import Mark, Remove, Send

REPAIRED_SECONDS = 5.0
"""A beat and a comparison."""


def key_of(pair: Pair) -> ConversationKey:
    (key,) = pair.backbones[A].registry.keys()
    return key


# --- every push crosses ---------------------------------------------------------------------


def test_a_message_is_pushed_to_members_whom_another_worker_serves_as_the_same_bytes() -> None:
    async def story(pair: Pair) -> None:
        ann, cid = await pair.connect(A, ANN), await pair.connect(A, CID)
        await ann.create(BEN, CID)
        ben, text = await pair.connect(B, BEN), await pair.connect(B, BEN, JSON)
        await until(lambda: cid.notices())
        await ann.say("one")
        await ann.say("two")
        await until(lambda: ben.pushed() == text.pushed() == [2, 3])
        # Who is put into a group is told to sync, and pushed what follows.
        assert cid.pushed() == [2, 3]
        assert ben.data[-2:] == cid.data[-2:]
        assert text.frames[-2:] == ben.frames[-2:]
        assert pair.count(B, "trunkline_pushed_entries_total") == 4

    tell(story)


def test_nothing_is_published_where_nobody_else_watches() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        for number in range(5):
            await ann.say(str(number))
        assert pair.hub.published == 0

    tell(story)


def test_who_joins_is_told_by_the_worker_that_serves_them_and_pushed_what_follows() -> None:
    """I13: nothing from before."""

    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create()
        await ann.say("before")
        await ann.add(BEN)
        await until(lambda: ben.notices())
        await ann.say("after")
        await until(lambda: ben.pushed() == [4])

    tell(story)


def test_a_marker_that_moved_is_told_to_the_users_endpoints_at_other_workers() -> None:
    async def story(pair: Pair) -> None:
        ann, other = await pair.connect(A, ANN), await pair.connect(B, ANN)
        await ann.create()
        await until(lambda: other.notices())
        before = other.notices()
        ann.send(Mark(GROUP, Seq(1), request=1))
        await until(lambda: other.notices() > before)

    tell(story)


# --- I13 ------------------------------------------------------------------------------------


def test_who_was_removed_is_pushed_nothing_from_behind_the_removal() -> None:
    """I13."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN, CID)
        ben, cid = await pair.connect(B, BEN), await pair.connect(B, CID)
        await ann.say("seen")
        await ann.remove(BEN)
        await ann.say("not seen")
        await until(lambda: cid.pushed() == [2, 3, 4])
        assert ben.pushed() == [2, 3]
        assert ben.notices()

    tell(story)


def test_a_worker_that_missed_the_removal_reads_the_members_before_it_writes() -> None:
    """I13: a frame of a newer version."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN, CID)
        ben, cid = await pair.connect(B, BEN), await pair.connect(B, CID)
        pair.hub.lose_next = 1
        await ann.remove(BEN)
        await ann.say("not seen")
        await until(lambda: 3 in cid.pushed())
        assert ben.pushed() == []
        assert ben.notices()
        assert pair.count(B, "trunkline_membership_reloads_total") == 1

    tell(story)


def test_a_worker_that_missed_the_removal_does_not_push_what_it_commits_itself() -> None:
    """I13: its own frames are no older or newer than others'."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN, CID)
        ben, cid = await pair.connect(B, BEN), await pair.connect(B, CID)
        pair.hub.lose_next = 1
        await ann.remove(BEN)
        await cid.say("not seen")
        await until(lambda: 3 in ann.pushed())
        await asyncio.sleep(1.0)
        assert ben.pushed() == []

    tell(story)


@pytest.mark.parametrize("worker", [A, B])
def test_an_unknown_outcome_that_is_settled_is_no_news_for_who_was_gone_before(
    worker: WorkerId,
) -> None:
    """I13: whom it may have removed is told to sync, who was removed long ago is not."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN, CID)
        await ann.remove(CID)
        ben, cid = await pair.connect(worker, BEN), await pair.connect(worker, CID)
        append = pair.hot.append

        async def without_answer(batch: Sequence[Draft], decide: Decide, **how: bool) -> Decision:
            await append(batch, decide, **how)
            pair.hot.append = append  # type: ignore[method-assign]
            raise OutcomeUnknown

        pair.hot.append = without_answer  # type: ignore[assignment, method-assign]
        ann.send(Remove(ClientMessageId("unknown"), GROUP, [BEN]))
        await until(lambda: ben.notices())
        await ann.say("not seen")
        await asyncio.sleep(5.0)
        assert ben.pushed() == cid.pushed() == []
        assert cid.notices() == 0

    tell(story)


def test_a_packet_that_is_lost_after_its_worker_was_taken_for_dead_is_missed() -> None:
    """Its number must not be one that the worker has seen before."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        await ann.say("one")
        await until(lambda: 2 in ben.pushed())
        pair.hub.cut(B)
        await ann.say("nobody listens")
        await asyncio.sleep(1.0)
        pair.hub.mend(B)
        await until(ben.notices)
        await asyncio.sleep(REPAIRED_SECONDS)
        notices = ben.notices()
        pair.hub.lose_next = 1
        await ann.say("lost")
        await until(lambda: ben.notices() > notices, REPAIRED_SECONDS)

    tell(story)


def test_a_frame_of_an_older_version_is_not_written_to_who_joined_since() -> None:
    """I13: the order in which two workers' frames arrive is any."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(CID)
        cid = await pair.connect(B, CID)
        pair.hub.lose_next = 1
        await ann.say("before")
        late = Frame(key_of(pair), GROUP, 1, Seq(2), Seq(2), ann_push(cid, 2))
        ben = await pair.connect(B, BEN)
        await ann.add(BEN)
        await until(lambda: ben.notices())
        pair.backbones[B]._crossing.fanout.show(late)  # type: ignore[union-attr]
        assert 2 in cid.pushed()
        assert ben.pushed() == []

    tell(story)


def ann_push(peer: object, seq: int) -> bytes:
    return MESSAGEPACK.encode(
        {"t": "push", "conversation": GROUP, "membership_version": 1,
         "entries": [{"seq": seq, "sender": ANN, "time_ms": 0, "body": "before"}]}
    )  # fmt: skip


# --- what is lost is repaired -----------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_last_push_is_repaired_within_seconds(lost: int) -> None:
    """Though the first beats after it may be lost, too."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        await ann.say("one")
        await until(lambda: ben.pushed() == [2])
        pair.hub.lose_next = lost
        await ann.say("lost")
        await until(lambda: ben.notices(), REPAIRED_SECONDS)
        assert pair.count(B, "trunkline_bus_gaps_total") == 1
        assert pair.count(B, "trunkline_push_repairs_total") == 1

    tell(story)


def test_beats_end_a_minute_after_the_last_packet() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        await ann.say("one")
        await until(lambda: ben.pushed() == [2])
        before = pair.count(A, "trunkline_bus_packets_total", way="sent")
        await asyncio.sleep(63.0)
        beats = pair.count(A, "trunkline_bus_packets_total", way="sent") - before
        await asyncio.sleep(60.0)
        assert 30 < beats < 36
        assert pair.count(A, "trunkline_bus_packets_total", way="sent") - before == beats

    tell(story)


def test_what_came_while_the_subscription_was_broken_is_repaired_and_registered_again() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        pair.hub.cut(B)
        await ann.say("nobody listens: the worker is named no more")
        await asyncio.sleep(1.0)
        assert not pair.hub.watching(key_of(pair), A)
        pair.hub.mend(B)
        await until(lambda: ben.notices(), REPAIRED_SECONDS)
        await ann.say("heard")
        await until(lambda: ben.pushed() == [3])

    tell(story)


def test_who_joined_unheard_is_told_and_watches_after_the_gap() -> None:
    async def story(pair: Pair) -> None:
        ann, ben = await pair.connect(A, ANN), await pair.connect(B, BEN)
        await ann.create()
        pair.hub.lose_next = 1
        await ann.add(BEN)
        await until(lambda: ben.notices(), REPAIRED_SECONDS)
        await ann.say("heard")
        await until(lambda: ben.pushed() == [3])

    tell(story)


def test_what_was_committed_while_the_tier_was_down_is_acked_and_told_afterwards() -> None:
    """The tier's loss costs time, never data."""

    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        pair.hub.is_down = True
        await ann.say("acked")
        pair.hub.is_down = False
        await until(lambda: ben.notices(), REPAIRED_SECONDS)
        await until(lambda: pair.count(A, "trunkline_bus_unpublished") == 0)

    tell(story)


def test_who_connects_while_the_tier_is_down_is_registered_once_it_answers() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        pair.hub.is_down = True
        ben = await pair.connect(B, BEN)
        pair.hub.is_down = False
        await until(lambda: pair.hub.watching(key_of(pair), A))
        await ann.say("heard")
        await until(lambda: ben.pushed() == [2])

    tell(story)


def test_too_many_unpublished_conversations_make_the_others_compare_everything() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        await ann.say("heard of one another")
        await until(lambda: ben.pushed())
        repairs = pair.backbones[A]._crossing._repairs  # type: ignore[union-attr]
        pair.hub.is_down = True
        await ann.say("lost")
        repairs._lanes[0].unpublished.clear()
        repairs.unpublished(ConversationKey(number) for number in range(10_001))
        pair.hub.is_down = False
        await until(lambda: ben.notices(), REPAIRED_SECONDS)

    tell(story)


# --- who watches ------------------------------------------------------------------------------


def test_a_hello_is_one_call_and_what_nobody_watches_any_more_is_taken_back_later() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        key = key_of(pair)
        calls: list[int] = []
        crossing = pair.backbones[B]._crossing
        assert crossing is not None
        tier = crossing._watching._cached
        watch = tier.watch

        async def counted(keys: list[ConversationKey]) -> None:
            calls.append(len(keys))
            await watch(keys)

        tier.watch = counted  # type: ignore[assignment, method-assign]
        ben = await pair.connect(B, BEN)
        assert calls == [1]
        ben.session.closed()
        again = await pair.connect(B, BEN)
        assert calls == [1]
        again.session.closed()
        assert pair.hub.watching(key, A) == [B]
        await until(lambda: not pair.hub.watching(key, A))
        assert not pair.hub.serving(BEN)

    tell(story)


def test_a_worker_that_nobody_hears_is_named_no_more() -> None:
    async def story(pair: Pair) -> None:
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        await pair.connect(B, BEN)
        pair.hub.close(B)
        await ann.say("to the dead")
        await until(lambda: not pair.hub.watching(key_of(pair), A))
        assert await pair.hub.open(WorkerId("c")).workers_of([BEN]) == {BEN: [B]}
        await ann.act(Send(ClientMessageId("single"), "body", to=BEN))
        await until(lambda: not pair.hub.serving(BEN))

    tell(story)


# --- I12 --------------------------------------------------------------------------------------


def test_nothing_between_workers_is_readable_and_no_nonce_comes_twice() -> None:
    """I12."""

    async def story(pair: Pair) -> None:
        seen: list[bytes] = []
        publish = pair.hub.publish

        def spied(sender: WorkerId, receiver: WorkerId, packet: bytes) -> bool:
            seen.append(packet)
            return publish(sender, receiver, packet)

        pair.hub.publish = spied  # type: ignore[method-assign]
        ann = await pair.connect(A, ANN)
        await ann.create(BEN)
        ben = await pair.connect(B, BEN)
        for number in range(3):
            await ann.say(f"a secret {number}")
        await until(lambda: ben.pushed() == [2, 3, 4])
        await asyncio.sleep(5.0)
        assert not any(b"secret" in packet or GROUP.encode() in packet for packet in seen)
        nonces = [packet.split(A.encode(), 1)[1][:24] for packet in seen]
        assert len(set(nonces)) == len(nonces) > 3

    tell(story)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x93\xa1x\x01\xc4\x00", b"\x81" * 100])
def test_what_is_no_packet_is_counted_as_a_gap_and_nothing_else(data: bytes) -> None:
    async def story(pair: Pair) -> None:
        await pair.hub.open(WorkerId("stranger")).publish({B: data})
        await until(lambda: pair.count(B, "trunkline_bus_gaps_total") == 1)

    tell(story)


def test_a_packet_that_holds_anything_is_no_beat() -> None:
    key = ConversationKey(1)
    full = [
        Packet([Frame(key, GROUP, 1, Seq(1), Seq(1), b"")]),
        Packet(notes=[Note(key, GROUP, (ANN,), True)]),
        Packet(told=[Told(key, GROUP, Seq(1), 1)]),
        Packet(everything=True),
    ]
    assert all(packet != Packet() for packet in full)
