"""Whatever a client sends is answered with its code; nobody else notices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
import websockets
from foreign_client import ForeignClient, Server, Undisturbed

from trunkline.services.settings import ServiceSettings

LIMIT = ServiceSettings().body_bytes
DEEP = 100_000


def of(frames: list[dict[str, Any]], type_: str) -> dict[str, Any]:
    (found,) = [frame for frame in frames if frame["t"] == type_]
    return found


async def refused(client: ForeignClient, code: str, close: int) -> None:
    """The client is told a code twice, in `error` and `goodbye`, and then closed."""
    frames, closed = await client.end()
    assert of(frames, "error")["code"] == code
    assert of(frames, "goodbye")["code"] == code
    assert not of(frames, "goodbye")["reconnect"]
    assert closed == close


NO_FRAMES = {
    "nothing": "",
    "no JSON": "hello",
    "half a frame": '{"t":"sync","request":1',
    "two frames": '{"t":"leave","id":"1","conversation":"c"}{}',
    "null": "null",
    "an array": '[{"t":"sync","request":1}]',
    "no type": '{"request":1}',
    "a type that is a number": '{"t":1,"request":1}',
    "an unknown frame": '{"t":"shout","request":1}',
    "a frame of the server": '{"t":"acked","acks":[]}',
    "an unknown field": '{"t":"sync","request":1,"colour":"red"}',
    "an unknown field within": '{"t":"pull","request":1,'
    '"ranges":[{"conversation":"c","after":0,"limit":5}]}',
    "a missing field": '{"t":"mark","conversation":"c"}',
    "a text for a number": '{"t":"sync","request":"1"}',
    "a fraction for a number": '{"t":"sync","request":1.5}',
    "a number for a text": '{"t":"send","id":1,"to":"b","body":"x"}',
    "an object for a body": '{"t":"send","id":"1","to":"b","body":{"text":"x"}}',
    "a negative seq": '{"t":"mark","conversation":"c","seq":-1}',
    "a seq past 2^53": '{"t":"mark","conversation":"c","seq":9007199254740992}',
    "a cursor past 2^64": '{"t":"sync","request":1,"cursor":99999999999999999999}',
    "a number of 5,000 digits": '{"t":"sync","request":' + "9" * 5_000 + "}",
    "half a surrogate pair": '{"t":"send","id":"\\ud800","to":"b","body":"x"}',
    "deep arrays": "[" * DEEP,
    "deep objects": '{"t":' * (DEEP // 5),
    "a deep field": '{"t":"hello","token":' + "[" * DEEP,
    "a deep unknown field": '{"x":' + "[" * (DEEP // 2) + "]" * (DEEP // 2) + ',"t":"sync"}',
}


@pytest.mark.parametrize("message", NO_FRAMES.values(), ids=NO_FRAMES.keys())
async def test_what_is_no_frame_is_answered_bad_frame_and_closed(
    server: Server, message: str
) -> None:
    async with Undisturbed(server):
        client = await server.connect("alice")
        await client.send_raw(message)
        await refused(client, "bad_frame", 4000)


NO_MESSAGEPACK = {
    "nothing": b"",
    "half a frame": msgspec.msgpack.encode({"t": "sync", "request": 1})[:-1],
    "the rest of another": msgspec.msgpack.encode({"t": "sync", "request": 1}) + b"\x00",
    "JSON": b'{"t":"sync","request":1}',
    "a length that is not there": b"\xdf\xff\xff\xff\xff",
    "a type that does not exist": b"\xc1",
    "an extension": b"\xd4\x01\x00",
    "text that is no UTF-8": b"\x81\xa1t\xa4\xff\xfe\xfd\xfc",
    "bytes for a text": msgspec.msgpack.encode({"t": "sync", "request": 1, "next": b"x"}),
    "deep arrays": b"\x91" * DEEP,
    "deep objects": b"\x81\xa1x" * (DEEP // 3),
    "a deep field": b"\x82\xa1t\xa5hello\xa5token" + b"\x91" * DEEP,
}


@pytest.mark.parametrize("message", NO_MESSAGEPACK.values(), ids=NO_MESSAGEPACK.keys())
async def test_what_is_no_messagepack_is_answered_bad_frame_and_closed(
    server: Server, message: bytes
) -> None:
    async with Undisturbed(server):
        client = await server.connect("alice", subprotocol="trunkline.msgpack")
        await client.send_raw(message)
        await refused(client, "bad_frame", 4000)


@pytest.mark.parametrize("subprotocol", ["trunkline.msgpack", "trunkline.json"])
async def test_a_message_of_the_other_kind_is_no_frame(server: Server, subprotocol: str) -> None:
    client = await server.connect("alice", subprotocol=subprotocol)
    frame = {"t": "sync", "request": 1}
    await client.send_raw(json.dumps(frame) if client.binary else json.dumps(frame).encode())
    await refused(client, "bad_frame", 4000)


async def test_json_that_is_no_utf8_is_no_frame(server: Server) -> None:
    client = await server.connect("alice")
    await client.socket.send(b'{"t":"sync","request":1,"next":"\xff"}', text=True)
    await refused(client, "bad_frame", 4000)


# --- the handshake ----------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [None, "chat", "trunkline.xml"])
async def test_who_offers_no_subprotocol_of_ours_is_refused_before_the_websocket_opens(
    server: Server, subprotocol: str | None
) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await server.dial(subprotocol=subprotocol)
    assert refusal.value.response.status_code == 400
    assert b"trunkline.json" in refusal.value.response.body


async def test_no_other_path_is_served(server: Server) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await server.dial(path="/v2")
    assert refusal.value.response.status_code == 404


# --- order ------------------------------------------------------------------------------


async def test_a_send_before_hello_is_the_wrong_order(server: Server) -> None:
    client = await server.dial()
    await client.send("send", id="1", to="bob", body="too early")
    await refused(client, "wrong_order", 4001)


async def test_hello_twice_is_the_wrong_order(server: Server) -> None:
    client = await server.connect("alice")
    await client.send("hello", token=server.token("alice"), endpoint="e1")
    await refused(client, "wrong_order", 4001)


async def test_a_version_that_is_not_spoken_is_refused(server: Server) -> None:
    client = await server.dial()
    await client.send("hello", token=server.token("alice"), endpoint="e1", versions=[2, 99])
    await refused(client, "unsupported_version", 4002)


async def test_what_is_sent_behind_a_frame_that_closes_is_not_served(server: Server) -> None:
    bob = await server.connect("bob")
    client = await server.connect("alice")
    await client.send_raw("no frame")
    for number in range(100):
        await client.send("send", id=str(number), to="bob", body="x" * 1_000)
    await refused(client, "bad_frame", 4000)
    answer = await bob.ask("sync", request=1, vector={})
    assert answer.get("conversations", []) == []


async def test_frames_right_behind_hello_are_served(server: Server) -> None:
    client = await server.dial()
    await client.send("hello", token=server.token("alice"), endpoint="e1")
    await client.send("send", id="1", to="bob", body="at once")
    frames = [await client.receive() for _ in range(2)]
    assert {frame["t"] for frame in frames} == {"welcome", "acked"}


@pytest.mark.parametrize("endpoint", ["", "e" * 65, "a\0b"])
async def test_a_hello_with_an_id_that_is_none_is_refused_and_closed(
    server: Server, endpoint: str
) -> None:
    client = await server.dial()
    await client.send("hello", token=server.token("alice"), endpoint=endpoint)
    await client.send("send", id="1", to="bob", body="behind a refused hello")
    await refused(client, "invalid_id", 4000)


# --- sizes ------------------------------------------------------------------------------


async def test_a_frame_past_the_limit_is_refused_and_closed(server: Server) -> None:
    async with Undisturbed(server):
        client = await server.connect("alice")
        most = server.settings.frame_bytes
        await client.send("send", id="1", to="bob", body="x" * most)
        await refused(client, "frame_too_large", 4009)


async def test_a_frame_far_past_the_limit_is_not_even_read(start_server: Any) -> None:
    server = await start_server(frame_bytes=64 * 1024)
    async with Undisturbed(server):
        client = await server.connect("alice")
        await client.send_raw("x" * (16 * server.settings.frame_bytes))
        assert (await client.end())[1] == 1009


BODIES = {
    "a byte": ("x", None),
    "nothing": ("", "body_empty"),
    "the limit": ("x" * LIMIT, None),
    "a byte more": ("x" * (LIMIT + 1), "body_too_large"),
    "the limit in characters of 4 bytes": ("🦊" * (LIMIT // 4), None),
    "a character of 4 bytes more": ("🦊" * (LIMIT // 4 + 1), "body_too_large"),
    "a byte more in characters of 3 bytes": ("€" * (LIMIT // 3) + "x", "body_too_large"),
    "a NUL": ("\0", None),
}


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("subprotocol", ["trunkline.msgpack", "trunkline.json"])
async def test_a_body_has_1_byte_to_the_limit_and_comes_back_as_it_was(
    server: Server, subprotocol: str, body: str, code: str | None
) -> None:
    alice = await server.connect("alice", subprotocol=subprotocol)
    answer = await alice.ask("send", id="1", to="bob", body=body)
    if code is not None:
        assert (answer["code"], answer["id"]) == (code, "1")
        assert (await alice.ask("send", id="1", to="bob", body="x"))["seq"] == 2
        return
    ranges = [{"conversation": answer["conversation"], "after": 1}]
    pulled = await alice.ask("pull", request=1, ranges=ranges)
    assert pulled["runs"][0]["entries"][0]["body"] == body


IDS = ["é", "e\u0301", "日本", "🦊" * 16, "a b", "'; --", "\u202e", "\ufeff", "x" * 64]


@pytest.mark.parametrize("id_", IDS)
async def test_ids_are_any_unicode_of_1_to_64_bytes(server: Server, id_: str) -> None:
    client = await server.connect(id_, endpoint=id_)
    made = await client.ask("create", id=id_, conversation=id_, users=["bob"])
    sent = await client.ask("send", id=f"{id_}"[:-1] + "!", conversation=id_, body="x")
    assert (made["conversation"], made["seq"], sent["seq"]) == (id_, 1, 2)
    again = await client.ask("create", id=id_, conversation=id_, users=["bob"])
    assert (again["seq"], again["duplicate"]) == (1, True)


NO_IDS = ["", "a\0b", "x" * 65, "é" * 33, "🦊" * 17]


@pytest.mark.parametrize("id_", NO_IDS)
async def test_what_is_no_id_is_refused_and_the_connection_goes_on(
    server: Server, id_: str
) -> None:
    alice = await server.connect("alice")
    conversation = "c" + "x" * 200 if len(id_) > 10 else id_
    operations: list[dict[str, Any]] = [
        {"type_": "send", "id": id_, "to": "bob", "body": "x"},
        {"type_": "send", "id": "1", "to": id_, "body": "x"},
        {"type_": "create", "id": "1", "conversation": conversation},
        {"type_": "create", "id": "1", "conversation": "g", "users": ["bob", id_]},
    ]
    for operation in operations:
        assert (await alice.ask(**operation))["code"] == "invalid_id"
    assert (await alice.ask("create", id="1", conversation="g"))["seq"] == 1


async def test_a_group_does_not_take_the_id_of_a_single_conversation(server: Server) -> None:
    mallory = await server.connect("mallory")
    id_ = "single:5:alice3:bob"
    assert (await mallory.ask("create", id="1", conversation=id_))["code"] == "invalid_id"
    assert (await mallory.ask("send", id="2", to="mallory", body="x"))["code"] == "invalid_id"


LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "too many users": (
        {"type_": "create", "id": "1", "conversation": "g", "users": [f"u{n}" for n in range(6)]},
        "too_many_users",
    ),
    "a full group": (
        {"type_": "add", "id": "1", "conversation": "full", "users": ["one", "two", "three"]},
        "group_full",
    ),
    "nobody to add": ({"type_": "add", "id": "1", "conversation": "full", "users": []},
                      "invalid_input"),
    "two targets": (
        {"type_": "send", "id": "1", "conversation": "full", "to": "bob", "body": "x"},
        "invalid_input",
    ),
    "no target": ({"type_": "send", "id": "1", "body": "x"}, "invalid_input"),
    "a content type of nothing": (
        {"type_": "send", "id": "1", "to": "bob", "body": "x", "content_type": ""},
        "invalid_input",
    ),
    "a content type of 129 bytes": (
        {"type_": "send", "id": "1", "to": "bob", "body": "x", "content_type": "x" * 129},
        "invalid_input",
    ),
    "a name of 257 bytes": (
        {"type_": "rename", "id": "1", "conversation": "full", "name": "x" * 257},
        "invalid_input",
    ),
    "a group that exists": (
        {"type_": "create", "id": "1", "conversation": "full"},
        "conversation_exists",
    ),
    "no ranges": ({"type_": "pull", "request": 1}, "invalid_range"),
    "too many ranges": (
        {"type_": "pull", "request": 1, "ranges": [{"conversation": "full", "after": 0}] * 257},
        "invalid_range",
    ),
    "a next of nowhere": ({"type_": "pull", "request": 1, "next": "é"}, "invalid_range"),
    "a next that is none": ({"type_": "pull", "request": 1, "next": "AAAA"}, "invalid_range"),
    "a sync's next that is none": (
        {"type_": "sync", "request": 1, "next": "AAAA"},
        "invalid_range",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("operation", "code"), LISTS.values(), ids=LISTS.keys())
async def test_what_does_not_fit_is_refused_and_the_connection_goes_on(
    start_server: Any, operation: dict[str, Any], code: str
) -> None:
    server = await start_server(users_per_operation=5, group_members=4)
    alice = await server.connect("alice")
    await alice.ask("create", id="made", conversation="full", users=["bob"])
    assert (await alice.ask(**operation))["code"] == code
    assert (await alice.ask("send", id="next", conversation="full", body="x"))["seq"] == 2


async def test_the_members_and_the_name_of_a_single_conversation_do_not_change(
    server: Server,
) -> None:
    alice = await server.connect("alice")
    single = (await alice.ask("send", id="1", to="bob", body="x"))["conversation"]
    for number, (type_, fields) in enumerate(
        [
            ("add", {"users": ["carol"]}),
            ("remove", {"users": ["bob"]}),
            ("leave", {}),
            ("rename", {"name": "we two"}),
        ]
    ):
        answer = await alice.ask(type_, id=f"n{number}", conversation=single, **fields)
        assert answer["code"] == "not_allowed"


# --- fragments --------------------------------------------------------------------------


async def test_a_message_in_fragments_is_one_frame(server: Server) -> None:
    alice = await server.connect("alice")
    frame = json.dumps({"t": "send", "id": "1", "to": "bob", "body": "in three parts"})
    await alice.socket.send([frame[:5], "", frame[5:20], frame[20:]])
    assert (await alice.receive())["acks"][0]["seq"] == 2


async def test_fragments_that_grow_past_the_limit_are_refused(server: Server) -> None:
    client = await server.connect("alice")
    part = "x" * (server.settings.frame_bytes // 4)

    async def endless() -> Any:
        while True:
            yield part

    with pytest.raises(websockets.ConnectionClosed):
        await client.socket.send(endless())
    await refused(client, "frame_too_large", 4009)


# --- too much ---------------------------------------------------------------------------


async def test_a_flood_is_answered_with_rate_limited_and_when_to_come_again(
    start_server: Any,
) -> None:
    server = await start_server(sends_per_second=50, send_burst=10)
    async with Undisturbed(server):
        alice = await server.connect("alice")
        for number in range(30):
            await alice.send("send", id=str(number), to="bob", body="x")
        acked: set[str] = set()
        refusals: list[dict[str, Any]] = []
        while len(acked) + len(refusals) < 30:
            frame = await alice.receive()
            acked.update(ack["id"] for ack in frame.get("acks", ()))
            refusals += [frame] if frame["t"] == "error" else []
        assert 10 <= len(acked) < 30
        assert {(e["code"], e["retryable"]) for e in refusals} == {("rate_limited", True)}
        assert all(0 < e["retry_after_seconds"] <= 1 / 50 for e in refusals)
        assert acked.isdisjoint(e["id"] for e in refusals)


async def test_the_rate_is_the_users_over_all_connections(start_server: Any) -> None:
    server = await start_server(sends_per_second=0.001, send_burst=2)
    answers = []
    for endpoint in ("e1", "e2", "e3"):
        alice = await server.connect("alice", endpoint=endpoint)
        answers.append(await alice.ask("send", id=endpoint, to="bob", body="x"))
    assert [a.get("code") for a in answers] == [None, None, "rate_limited"]


async def test_too_many_open_requests_are_refused_each_by_its_number(start_server: Any) -> None:
    server = await start_server(open_requests=4)
    alice = await server.connect("alice", subprotocol="trunkline.msgpack")
    numbers = range(1, 41)
    for number in numbers:
        await alice.send("sync", request=number, vector={})
    answers = {(a := await alice.receive())["request"]: a for _ in numbers}
    assert sorted(answers) == list(numbers)
    refusals = [a for a in answers.values() if a["t"] == "error"]
    assert {e["code"] for e in refusals} == {"too_many_requests"}
    assert all(e["retryable"] and e["retry_after_seconds"] > 0 for e in refusals)
    await asyncio.sleep(0)
    assert (await alice.ask("sync", request=99, vector={}))["t"] == "synced"


async def test_one_user_does_not_take_every_connection(start_server: Any) -> None:
    server = await start_server(connections=6, connections_per_user=3)
    mallory = [await server.connect("mallory", endpoint=f"e{number}") for number in range(5)]
    for oldest in mallory[:2]:
        frames, close = await oldest.end()
        assert (frames[-1]["t"], frames[-1]["code"]) == ("goodbye", "replaced")
        assert not frames[-1]["reconnect"]
        assert close == 4103
    await server.connect("alice")
    assert (await mallory[-1].ask("send", id="1", to="alice", body="here"))["seq"] == 2
    assert server.backbone.registry.count == 4


async def test_a_connection_past_the_servers_bound_is_told_to_come_back(start_server: Any) -> None:
    server = await start_server(connections=1)
    await server.connect("alice")
    client = await server.dial()
    await client.send("hello", token=server.token("bob"), endpoint="e1")
    await client.send("send", id="1", to="alice", body="behind a refused hello")
    frames, close = await client.end()
    assert of(frames, "error")["code"] == "overloaded"
    goodbye = of(frames, "goodbye")
    assert goodbye["reconnect"]
    assert goodbye["retry_after_seconds"] > 0
    assert close == 4104
