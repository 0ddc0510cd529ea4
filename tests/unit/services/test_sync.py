"""A sync names all that an endpoint lacks, whatever it and the server remember, and little else."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from one_worker import Device, Held, Worker, alone

from trunkline.core.digest import to_hex, vector_digest
from trunkline.core.ranges import PARTS, Vector, pack_sums, part_of, place_of
from trunkline.errors import InvalidInput, RateLimited
from trunkline.model import ConversationId, EndpointId, Seq, UserId
from trunkline.wire.frames import Error, HeldPart, Leave, Sync, Synced

ZERO = Seq(0)


def all_at(ids: list[ConversationId], seq: int) -> Held:
    return dict.fromkeys(ids, Seq(seq))


def vector_of(held: Held) -> Vector:
    vector = Vector()
    for conversation, seq in held.items():
        vector.move(conversation, seq)
    list(vector.divide())
    return vector


async def told_whole(device: Device, held: Held) -> list[ConversationId]:
    """As a client does that sends its vector whole, with the first page only."""
    frame = Sync(1, 2**40, to_hex(vector_digest(held)), held)
    rows: list[ConversationId] = []
    while True:
        answer = await device.ask(frame)
        assert isinstance(answer, Synced)
        assert not answer.vector_wanted
        rows += [row.conversation for row in answer.conversations]
        if not answer.next:
            return rows
        frame = Sync(1, 2**40, frame.vector_digest, next=answer.next)


def test_every_page_answers_to_the_vector_of_the_first() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(9, "bob")
        bob = await worker.connect("bob")
        await bob.sync({}, 0)
        await bob.confirm(all_at(ids, 1))
        assert sorted(await told_whole(bob, all_at(ids[:1], 1))) == sorted(ids[1:])

    alone(story, sync_page_conversations=2)


def test_a_page_whose_answer_is_forgotten_is_compared_anew() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(9, "bob")
        bob = await worker.connect("bob")
        await bob.sync({}, 0)
        await bob.confirm(all_at(ids, 1))
        restored = all_at(ids[:1], 1)
        page = await bob.page(restored)
        rows = [row.conversation for row in page.conversations]
        while page.next:
            await asyncio.sleep(1.0)
            bob.session.closed()
            worker.restart()
            bob = await worker.connect("bob")
            page = await bob.page(restored, page.next)
            rows += [row.conversation for row in page.conversations]
        assert sorted(rows) == sorted(ids[1:])

    alone(story, sync_page_conversations=2, offsets_write_seconds=0.001)


def test_a_page_asked_for_again_is_the_same() -> None:
    async def story(worker: Worker) -> None:
        await worker.groups(5, "bob")
        bob = await worker.connect("bob")
        first = await bob.page({}, cursor=0)
        again = [await bob.page({}, first.next, 0) for _ in range(2)]
        assert again[0] == again[1] or again[0].conversations == again[1].conversations != []

    alone(story, sync_page_conversations=2)


@pytest.mark.parametrize("restarts", [False, True])
def test_an_endpoint_that_holds_all_needs_no_offsets(*, restarts: bool) -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(20, "bob")
        bob = await worker.connect("bob")
        for _ in range(5):
            await worker.say(*ids)
        if restarts:
            worker.restart()
            bob = await worker.connect("bob")
        assert (await bob.sync(all_at(ids, 6)), bob.trips) == ({}, 1)
        await worker.say(*ids[:3])
        assert (await bob.sync(all_at(ids, 6))).keys() == set(ids[:3])
        assert bob.trips == 2

    alone(story)


@pytest.mark.parametrize("lost", [False, True])
def test_what_changed_among_very_many_costs_three_short_round_trips(*, lost: bool) -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(1_500, "bob")
        bob = await worker.connect("bob")
        await bob.sync({}, 0)
        if not lost:
            await bob.confirm(all_at(ids, 1))
        changed = ids[::150]
        await worker.say(*changed)
        bob.trips = bob.exchanged = 0
        assert (await bob.sync(all_at(ids, 1))).keys() == set(changed)
        assert bob.trips == (3 if lost else 1)
        assert bob.exchanged < 10_000
        bob.trips = 0
        assert (await bob.sync(all_at(ids, 1))).keys() == set(changed)
        assert bob.trips == 1, "what was proven is remembered"

    alone(story, sync_page_conversations=2_000)


def test_sums_that_agree_by_chance_make_the_server_ask_for_the_vector_itself() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(10, "bob")
        bob = await worker.connect("bob")
        sums = vector_of(all_at(ids, 1)).sums()
        answer = await bob.ask(Sync(1, 1, "1" * 32, range_sums=pack_sums(sums)))
        assert answer == Synced(1, vector_wanted=True)

    alone(story)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_held_and_confirmed_all_that_lies_beyond_is_named(seed: int) -> None:
    chance = random.Random(seed)

    async def story(worker: Worker) -> None:
        ids = await worker.groups(60, "bob", "cid")
        ends: Held = all_at(ids, 1)
        bob = await worker.connect("bob")
        held: Held = {}
        for _ in range(6):
            said = [id_ for id_ in ids if chance.random() < 0.3]
            await worker.say(*said)
            ends |= {id_: Seq(ends[id_] + 1) for id_ in said}
            pulled = [id_ for id_ in ids if chance.random() < 0.7]
            held |= {id_: ends[id_] for id_ in pulled}
            confirmed = {id_: held[id_] for id_ in pulled if chance.random() < 0.7}
            if confirmed:
                await bob.confirm(confirmed)
            match chance.randrange(4):
                case 0:
                    worker.restart()
                    bob = await worker.connect("bob")
                case 1:  # from its own backup
                    held = {i: Seq(max(1, s - 1)) for i, s in held.items() if chance.random() < 0.8}
            rows = await bob.sync(held)
            assert rows.keys() == {id_ for id_ in ids if ends[id_] > held.get(id_, ZERO)}
            assert {id_: row.head for id_, row in rows.items()} == {i: ends[i] for i in rows}

    alone(story, sync_page_conversations=7, offsets_per_frame=60, sync_bytes=20_000)


def test_what_comes_between_two_steps_of_a_comparison_is_not_taken_as_held() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(300, "bob")
        places = {id_: part_of(place_of(id_)) for id_ in ids}
        behind, whole = next(
            (one, other)
            for one, other in itertools.combinations(ids, 2)
            if places[one] // PARTS == places[other] // PARTS and places[one] != places[other]
        )
        await worker.say(behind)
        held = vector_of(all_at(ids, 1))
        digest = to_hex(held.digest)
        phone, tablet = await worker.connect("bob"), await worker.connect("bob", endpoint="tablet")
        asked = await phone.ask(Sync(1, 2**40, digest, range_sums=pack_sums(held.sums())))
        assert isinstance(asked, Synced)
        (one,) = asked.parts_wanted
        await worker.say(whole)
        await tablet.sync({})
        parts = [HeldPart(*part) for part in held.unlike(one.range, one.sums).items()]
        answer = await phone.ask(Sync(2, 2**40, digest, parts=parts))
        assert isinstance(answer, Synced)
        assert {row.conversation for row in answer.conversations} == {behind, whole}
        phone.trips = 0
        assert (await phone.sync(all_at(ids, 1))).keys() == {behind, whole}
        assert phone.trips == 1

    alone(story)


def test_what_a_sync_proves_is_recorded_and_offsets_never_sink() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(40, "bob")
        await worker.say(*ids)
        bob = await worker.connect("bob")
        await bob.sync(all_at(ids, 2) | all_at(ids[:1], 1))
        await bob.sync(all_at(ids, 1))
        worker.restart()
        lines = await worker.hot.conversations_of(UserId("bob"))
        stored = await worker.hot.offsets(UserId("bob"), EndpointId("device"))
        offsets = {line.conversation: stored.get(line.key, ZERO) for line in lines}
        assert offsets == all_at(ids, 2) | all_at(ids[:1], 1)

    alone(story, offsets_write_seconds=0.001)


def test_who_was_removed_is_told_once_and_never_that_it_goes_on() -> None:
    async def story(worker: Worker) -> None:
        (id_,) = await worker.groups(1, "bob")
        bob = await worker.connect("bob")
        await bob.act(Leave(id="leave", conversation=id_))  # type: ignore[arg-type]
        await worker.say(id_)
        held: Held = {id_: Seq(2)}
        assert [row.left for row in (await bob.sync(held, 0)).values()] == [True]
        assert await bob.sync(held) == {}

    alone(story)


def test_a_frame_that_names_too_many_conversations_is_refused() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(4, "bob")
        bob = await worker.connect("bob")
        answer = await bob.ask(Sync(1, vector=all_at(ids, 1)))
        assert isinstance(answer, Error)
        assert answer.code == InvalidInput.code

    alone(story, offsets_per_frame=3)


def test_a_user_whose_requests_name_very_many_conversations_is_slowed_down() -> None:
    async def story(worker: Worker) -> None:
        ids = await worker.groups(30, "bob")
        bob, ann = await worker.connect("bob"), await worker.connect("ann")
        refused: list[Error] = []
        for _ in range(10):
            answer = await bob.ask(Sync(1, 2**40, vector=all_at(ids, 1)))
            refused += [answer] if isinstance(answer, Error) else []
        assert {error.code for error in refused} == {RateLimited.code}
        assert len(refused) == 8
        assert isinstance(await ann.ask(Sync(1, 2**40, vector=all_at(ids, 1))), Synced)
        await asyncio.sleep(refused[0].retry_after_seconds or 0)
        assert isinstance(await bob.ask(Sync(1, 2**40, vector=all_at(ids, 1))), Synced)

    alone(story, offsets_per_second=10.0, offsets_burst=100)
