"""I13 and I9 over the wire: only members read, write or learn anything, and within their view."""

from __future__ import annotations

from typing import Any

import pytest
from foreign_client import ForeignClient, Server

from trunkline.adapters.memory.hot import MemoryHotStore

Fields = dict[str, Any]

OPERATIONS: dict[str, Fields] = {
    "send": {"id": "x", "body": "hello?"},
    "add": {"id": "x", "users": ["mallory"]},
    "remove": {"id": "x", "users": ["alice"]},
    "leave": {"id": "x"},
    "rename": {"id": "x", "name": "mine"},
}
READS: dict[str, Fields] = {
    "pull": {"request": 7},
    "confirm": {"request": 7},
    "mark": {"request": 7, "seq": 1},
}
WHAT_EXISTS = ["g", "single:5:alice3:bob", "nowhere", "single:5:alice7:mallory", "single:"]


def request(type_: str, conversation: str, fields: Fields) -> Fields:
    if type_ == "pull":
        return {"ranges": [{"conversation": conversation, "after": 0}], **fields}
    if type_ == "confirm":
        return {"offsets": {conversation: 1}, **fields}
    return {"conversation": conversation, **fields}


@pytest.fixture
async def alice(server: Server) -> ForeignClient:
    """A member of the group `g` (entries 1 to 3) and of a single conversation with bob."""
    alice = await server.connect("alice")
    await alice.ask("create", id="1", conversation="g", users=["bob"], name="Ours")
    await alice.ask("send", id="2", conversation="g", body="ours")
    await alice.ask("send", id="3", conversation="g", body="alone")
    await alice.ask("send", id="4", to="bob", body="between us")
    return alice


async def heads(client: ForeignClient) -> dict[str, Fields]:
    synced = await client.ask("sync", request=99, vector={})
    return {changed["conversation"]: changed for changed in synced.get("conversations", [])}


@pytest.mark.parametrize("type_", [*OPERATIONS, *READS])
async def test_an_outsider_cannot_tell_what_exists_from_what_does_not(
    server: Server, alice: ForeignClient, type_: str
) -> None:
    mallory = await server.connect("mallory")
    before = await heads(alice)
    answers = []
    for conversation in WHAT_EXISTS:
        fields = (OPERATIONS | READS)[type_]
        answer = await mallory.ask(type_, **request(type_, conversation, fields))
        assert answer["code"] == "not_member"
        answer.pop("conversation", None)
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers)
    assert await heads(mallory) == {}
    assert await heads(alice) == before


@pytest.mark.parametrize("type_", [*OPERATIONS, *READS])
async def test_nothing_is_looked_up_of_other_peoples_single_conversations(
    server: Server, alice: ForeignClient, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I13: how long an answer takes tells nothing."""
    mallory = await server.connect("mallory")
    for question in ("views", "append"):
        monkeypatch.setattr(MemoryHotStore, question, _looked_up)
    for conversation in ("single:5:alice3:bob", "single:5:alice5:carol"):
        answer = await mallory.ask(
            type_, **request(type_, conversation, (OPERATIONS | READS)[type_])
        )
        assert answer["code"] == "not_member"
    monkeypatch.undo()


def _looked_up(*_: object, **__: object) -> None:
    raise AssertionError("It was looked up.")


async def test_a_vector_that_names_the_conversations_of_others_tells_nothing(
    server: Server, alice: ForeignClient
) -> None:
    mallory = await server.connect("mallory")
    synced = await mallory.ask("sync", request=1, vector={"g": 1, "nowhere": 1})
    assert synced == {"t": "synced", "request": 1, "store": synced["store"]}


async def test_one_foreign_conversation_among_own_ones_refuses_the_whole_request(
    server: Server, alice: ForeignClient
) -> None:
    mallory = await server.connect("mallory")
    await mallory.ask("create", id="1", conversation="own")
    for type_, fields in {
        "pull": {"ranges": [{"conversation": c, "after": 0} for c in ("own", "g")]},
        "confirm": {"offsets": {"own": 1, "g": 1}},
    }.items():
        answer = await mallory.ask(type_, request=1, **fields)
        assert (answer["code"], "runs" in answer) == ("not_member", False)
    assert "own" in await heads(mallory)


async def test_an_outsider_is_pushed_nothing(server: Server, alice: ForeignClient) -> None:
    mallory = await server.connect("mallory")
    await alice.ask("send", id="5", conversation="g", body="for members")
    await mallory.send("sync", request=1, vector={})
    assert (await mallory.receive())["t"] == "synced"


@pytest.fixture
async def former(server: Server, alice: ForeignClient) -> ForeignClient:
    """Bob after he was removed by entry 4; the group went on to entry 5."""
    bob = await server.connect("bob")
    await alice.ask("remove", id="6", conversation="g", users=["bob"])
    await alice.ask("send", id="7", conversation="g", body="without him")
    assert (await bob.until("push"))["entries"][-1]["seq"] == 4
    assert (await bob.receive()) == {"t": "notice", "conversation": "g"}
    return bob


@pytest.mark.parametrize("type_", OPERATIONS)
async def test_a_former_member_changes_nothing(
    alice: ForeignClient, former: ForeignClient, type_: str
) -> None:
    before = await heads(alice)
    answer = await former.ask(type_, **request(type_, "g", OPERATIONS[type_]))
    assert answer["code"] == "not_member"
    assert await heads(alice) == before


async def test_a_former_member_reads_the_view_to_its_end_and_no_further(
    former: ForeignClient,
) -> None:
    changed = (await heads(former))["g"]
    assert (changed["first"], changed["head"], changed["left"]) == (1, 4, True)
    pulled = await former.ask("pull", request=1, ranges=[{"conversation": "g", "after": 0}])
    entries = pulled["runs"][0]["entries"]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4]
    for after, up_to in ((0, 5), (4, 5), (5, 0)):
        ranges = [{"conversation": "g", "after": after, "up_to": up_to}]
        assert (await former.ask("pull", request=2, ranges=ranges))["code"] == "invalid_range"
    assert (await former.ask("mark", request=3, conversation="g", seq=5))["code"] == (
        "ahead_of_head"
    )
    assert (await former.ask("confirm", request=4, offsets={"g": 5}))["code"] == "ahead_of_head"
    assert (await former.ask("mark", request=5, conversation="g", seq=4))["t"] == "done"


async def test_a_former_member_is_told_no_later_name(
    server: Server, alice: ForeignClient, former: ForeignClient
) -> None:
    """I13: by no sync, of none of their endpoints."""
    for number, name in enumerate(("How we replace Bob", "Bob's successor is Carol")):
        await alice.ask("rename", id=f"r{number}", conversation="g", name=name)
        fresh = await server.connect("bob", endpoint=f"fresh{number}")
        for client in (former, fresh):
            changed = (await heads(client))["g"]
            assert (changed["left"], "name" in changed) == (True, False)


async def test_who_joins_sees_from_their_own_entry_on(server: Server, alice: ForeignClient) -> None:
    carol = await server.connect("carol")
    await alice.ask("add", id="8", conversation="g", users=["carol"])
    assert await carol.receive() == {"t": "notice", "conversation": "g"}
    changed = (await heads(carol))["g"]
    assert (changed["first"], changed["head"]) == (4, 4)
    for after, up_to, code in ((2, 0, "invalid_range"), (0, 3, "invalid_range"), (3, 4, None)):
        ranges = [{"conversation": "g", "after": after, "up_to": up_to}]
        answer = await carol.ask("pull", request=1, ranges=ranges)
        assert answer.get("code") == code


async def test_who_comes_back_sees_from_the_new_entry_on(
    alice: ForeignClient, former: ForeignClient
) -> None:
    await alice.ask("add", id="9", conversation="g", users=["bob"])
    changed = (await heads(former))["g"]
    assert (changed["first"], changed["head"], changed.get("left", False)) == (6, 6, False)
    assert (await former.ask("send", id="1", conversation="g", body="back"))["seq"] == 7


@pytest.mark.parametrize(
    ("after", "up_to"), [(0, 4), (4, 0), (4, 4), (3, 2), (2**53 - 1, 0), (0, 2**53 - 1)]
)
async def test_a_range_outside_the_view_is_refused_never_shortened(
    alice: ForeignClient, after: int, up_to: int
) -> None:
    ranges = [{"conversation": "g", "after": after, "up_to": up_to}]
    answer = await alice.ask("pull", request=1, ranges=ranges)
    assert (answer["code"], answer["request"]) == ("invalid_range", 1)


@pytest.mark.parametrize("seq", [4, 2**53 - 1])
async def test_what_lies_past_head_is_neither_confirmed_nor_marked(
    alice: ForeignClient, seq: int
) -> None:
    assert (await alice.ask("confirm", request=1, offsets={"g": seq}))["code"] == "ahead_of_head"
    answer = await alice.ask("mark", request=2, conversation="g", seq=seq)
    assert (answer["code"], answer["request"]) == ("ahead_of_head", 2)
    assert (await heads(alice))["g"]["marker"] == 3


async def test_offsets_and_markers_never_move_back(server: Server, alice: ForeignClient) -> None:
    bob = await server.connect("bob")
    for type_, forth, back in (
        ("mark", {"conversation": "g", "seq": 3}, {"conversation": "g", "seq": 1}),
        ("confirm", {"offsets": {"g": 3}}, {"offsets": {"g": 1}}),
    ):
        assert (await bob.ask(type_, request=1, **forth))["t"] == "done"
        assert (await bob.ask(type_, request=2, **back))["t"] == "done"
    changed = (await heads(bob))["g"]
    assert (changed["marker"], changed.get("unread", 0)) == (3, 0)
