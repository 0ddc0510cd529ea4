"""The smallest client of docs/protocol.md, written from that page, gets all and can prove it."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest
from foreign_client import ForeignClient, Server

Copies = dict[str, dict[int, dict[str, Any]]]
NOTHING = "0" * 32
both = pytest.mark.parametrize("subprotocol", ["trunkline.msgpack", "trunkline.json"])


def entry_hash(conversation: str, entry: dict[str, Any], key: bytes) -> int:
    """Section "Digests" of the page."""
    texts = [
        conversation,
        entry["sender"],
        entry.get("kind", "message"),
        entry.get("content_type", "text/plain"),
        entry["body"],
    ]
    parts = [text.encode() for text in texts]
    data = b"".join(
        [
            entry["seq"].to_bytes(8, "big"),
            entry.get("refers_to", 0).to_bytes(8, "big"),
            entry["time_ms"].to_bytes(8, "big"),
            *(len(part).to_bytes(2, "big") for part in parts[:4]),
            len(parts[4]).to_bytes(4, "big"),
            *parts,
        ]
    )
    return int.from_bytes(blake2b(data, digest_size=16, key=key).digest(), "big")


def vector_digest(vector: dict[str, int]) -> str:
    """Section "The vector digest" of the page."""
    terms = (
        blake2b(seq.to_bytes(8, "big") + name.encode(), digest_size=16)
        for name, seq in vector.items()
    )
    return f"{sum(int.from_bytes(term.digest(), 'big') for term in terms) % 2**128:032x}"


async def sync(
    client: ForeignClient, *, cursor: int = 0, vector: dict[str, int] | None = None
) -> tuple[int, dict[str, dict[str, Any]], bool]:
    """Cursor, what changed by conversation, and whether the vector was wanted."""
    asked: dict[str, Any] = {"cursor": cursor, "vector_digest": vector_digest(vector or {})}
    answer = await client.ask("sync", request=1, **asked)
    wanted = answer.get("vector_wanted", False)
    if wanted:
        asked["vector"] = vector or {}
        answer = await client.ask("sync", request=2, **asked)
    changed = answer.get("conversations", [])
    while "next" in answer:
        answer = await client.ask("sync", request=3, next=answer["next"], **asked)
        changed += answer.get("conversations", [])
    return answer["cursor"], {c["conversation"]: c for c in changed}, wanted


async def pull(client: ForeignClient, after: dict[str, int], copies: Copies) -> int:
    """Pulls to the ends of the views; returns the number of pages."""
    asked: dict[str, Any] = {
        "ranges": [{"conversation": name, "after": seq} for name, seq in after.items()]
    }
    pages = 0
    while asked:
        answer = await client.ask("pull", request=4, **asked)
        pages += 1
        for run in answer["runs"]:
            copy = copies.setdefault(run["conversation"], {})
            assert [e["seq"] for e in run["entries"]] == [
                run["after"] + 1 + n for n in range(len(run["entries"]))
            ]
            copy.update({entry["seq"]: entry for entry in run["entries"]})
        asked = {"next": answer["next"]} if "next" in answer else {}
    return pages


def prove(changed: dict[str, Any], copy: dict[int, dict[str, Any]]) -> None:
    """I1 and I14 for one conversation."""
    assert sorted(copy) == list(range(changed["first"], changed["head"] + 1))
    key = bytes.fromhex(changed["digest_key"])
    hashes = (entry_hash(changed["conversation"], entry, key) for entry in copy.values())
    assert f"{sum(hashes) % 2**128:032x}" == changed["digest"]


async def test_welcome_and_synced_say_which_store_it_is_as_of_now(server: Server) -> None:
    client = await server.dial()
    await client.send("hello", token=server.token("alice"), endpoint="e1")
    first = (await client.receive())["store"]
    life = server.identity.life
    assert (first["id"], first["generation"], first["mark"]) == (life.id, 1, life.mark)
    answer = await client.ask("sync", request=1, vector_digest=NOTHING)
    assert answer["store"] == first
    await server.identity.begin("a test")
    answer = await client.ask("sync", request=2, vector_digest=NOTHING)
    assert (answer["store"]["id"], answer["store"]["generation"]) == (first["id"], 2)
    assert answer["store"]["mark"] != first["mark"]


@both
async def test_who_was_away_gets_everything_and_proves_it(
    start_server: Any, subprotocol: str
) -> None:
    server: Server = await start_server(page_bytes=1_000, sync_page_conversations=2)
    alice = await server.connect("alice", subprotocol=subprotocol)
    for name in ("g1", "g2", "g3"):
        await alice.ask("create", id="made", conversation=name, users=["bob", "carol"], name=name)
    for number in range(300):
        await alice.ask("send", id=f"m{number}", conversation="g1", body=f"№ {number} 🦊")
    await alice.ask(
        "send", id="json", to="bob", body="[1]", content_type="application/json", refers_to=1
    )
    await alice.ask("rename", id="renamed", conversation="g2", name="Größer")
    await alice.ask("remove", id="removed", conversation="g3", users=["bob", "carol"])
    await alice.ask("send", id="after", conversation="g3", body="not for bob")

    bob = await server.connect("bob", subprotocol=subprotocol)
    cursor, changed, wanted = await sync(bob)
    assert not wanted
    assert set(changed) == {"g1", "g2", "g3", "single:5:alice3:bob"}
    assert (changed["g2"]["name"], changed["g3"]["left"]) == ("Größer", True)
    assert changed["g1"]["unread"] == 300
    copies: Copies = {}
    assert await pull(bob, dict.fromkeys(changed, 0), copies) > 3
    for name, one in changed.items():
        prove(one, copies[name])

    vector = {name: max(copy) for name, copy in copies.items()}
    assert (await bob.ask("confirm", request=5, offsets=vector))["t"] == "done"
    assert await sync(bob, cursor=cursor, vector=vector) == (cursor, {}, False)
    await alice.ask("send", id="new", conversation="g1", body="new")
    _, changed, wanted = await sync(bob, cursor=cursor, vector=vector)
    assert (set(changed), wanted) == ({"g1"}, False)
    await pull(bob, {"g1": vector["g1"]}, copies)
    prove(changed["g1"], copies["g1"])


async def test_an_endpoint_whose_offsets_the_server_does_not_know_sends_them_once(
    server: Server,
) -> None:
    alice = await server.connect("alice")
    await alice.ask("create", id="1", conversation="g", users=["bob"])
    await alice.ask("send", id="2", conversation="g", body="x")
    bob = await server.connect("bob", endpoint="new")
    cursor, changed, wanted = await sync(bob, vector={"g": 1, "unknown": 5})
    assert (changed["g"]["head"], wanted) == (2, True)
    assert not (await sync(bob, cursor=cursor, vector={"g": 1}))[2]


async def test_a_resend_is_acked_with_the_first_seq_through_any_connection_and_after_leaving(
    server: Server,
) -> None:
    alice = await server.connect("alice")
    await alice.ask("create", id="1", conversation="g", users=["bob"])
    bob = await server.connect("bob")
    first = await bob.ask("send", id="2", conversation="g", body="first")
    assert (first["seq"], "duplicate" in first) == (2, False)
    again = await (await server.connect("bob", endpoint="other")).ask(
        "send", id="2", conversation="g", body="another body"
    )
    duplicate = {"id": "2", "conversation": "g", "seq": 2, "duplicate": True}
    assert again == duplicate
    await bob.ask("leave", id="3", conversation="g")
    assert await bob.ask("send", id="2", conversation="g", body="first") == duplicate
    assert (await bob.ask("send", id="4", conversation="g", body="new"))["code"] == "not_member"


async def test_the_other_endpoints_of_a_user_are_told_when_the_marker_moves(
    server: Server,
) -> None:
    alice = await server.connect("alice")
    await alice.ask("create", id="1", conversation="g", users=["bob"])
    await alice.ask("send", id="2", conversation="g", body="x")
    phone = await server.connect("bob", endpoint="phone")
    tablet = await server.connect("bob", endpoint="tablet")
    vector = {"g": 2}
    await phone.ask("confirm", request=1, offsets=vector)
    cursor, _, _ = await sync(phone, vector=vector)
    assert (await tablet.ask("mark", request=1, conversation="g", seq=2))["t"] == "done"
    assert await phone.until("notice") == {"t": "notice", "conversation": "g"}
    _, changed, _ = await sync(phone, cursor=cursor, vector=vector)
    assert (changed["g"]["marker"], changed["g"].get("unread", 0)) == (2, 0)


async def test_a_connection_without_push_is_told_nothing_by_itself(server: Server) -> None:
    alice = await server.connect("alice")
    quiet = await server.dial()
    await quiet.send("hello", token=server.token("bob"), endpoint="e1", push=False)
    assert (await quiet.receive())["t"] == "welcome"
    await alice.ask("send", id="1", to="bob", body="x")
    await quiet.send("sync", request=1, vector={})
    assert (await quiet.receive())["t"] == "synced"


async def test_an_own_message_built_from_its_ack_is_the_one_that_others_pull(
    server: Server,
) -> None:
    alice = await server.connect("alice")
    ack = await alice.ask("send", id="1", to="bob", body="mine", refers_to=1)
    built = {
        "seq": ack["seq"],
        "sender": "alice",
        "time_ms": ack["time_ms"],
        "body": "mine",
        "refers_to": 1,
    }
    bob = await server.connect("bob")
    copies: Copies = {}
    await pull(bob, {ack["conversation"]: 1}, copies)
    assert copies[ack["conversation"]][2] == built
