"""What one user may cause to those whom an operation names: told once, charged, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

from foreign_client import ForeignClient, Server

NUMBER_OF_GROUPS = 5


async def frames_until_synced(client: ForeignClient) -> list[str]:
    """The types of the frames that waited for a client."""
    await client.send("sync", request=1, vector={})
    types = []
    while (frame := await client.receive())["t"] != "synced":
        types.append(frame["t"])
    return types


async def test_who_is_put_into_a_group_is_told_to_sync_and_pushed_what_follows(
    server: Server,
) -> None:
    """The entry that names all of them is for those who ask for it."""
    eve, other = await server.connect("eve", endpoint="other"), await server.connect("eve")
    bob = await server.connect("bob")
    await eve.ask("create", id="1", conversation="g", users=["bob", "carol"])
    assert await frames_until_synced(bob) == ["notice"]
    assert await frames_until_synced(other) == ["push"]
    await eve.ask("send", id="2", conversation="g", body="hello")
    assert (await bob.until("push"))["entries"][0]["seq"] == 2
    pulled = await bob.ask("pull", request=2, ranges=[{"conversation": "g", "after": 0}])
    assert [entry["seq"] for entry in pulled["runs"][0]["entries"]] == [1, 2]


async def test_the_two_of_a_single_conversation_are_pushed_it_whole(server: Server) -> None:
    bob = await server.connect("bob")
    eve = await server.connect("eve")
    await eve.ask("send", id="1", to="bob", body="hello")
    entries = [e["seq"] for _ in range(2) for e in (await bob.until("push"))["entries"]]
    assert entries == [1, 2]


async def test_the_rate_of_a_user_counts_the_users_that_are_named(
    start_server: Any,
) -> None:
    server = await start_server(named_per_second=0.001, named_burst=100)
    eve = await server.connect("eve")
    many = [f"u{number}" for number in range(40)]
    for number, code in enumerate((None, None, "rate_limited")):
        answer = await eve.ask("create", id=f"{number}", conversation=f"g{number}", users=many)
        assert answer.get("code") == code
    assert answer["retryable"]
    assert answer["retry_after_seconds"] > 1
    assert (await eve.ask("send", id="s", conversation="g0", body="x"))["seq"] == 2


async def test_strangers_together_put_a_user_into_so_many_conversations_at_a_time(
    start_server: Any,
) -> None:
    server = await start_server(joined_per_second=0.001, joined_burst=NUMBER_OF_GROUPS)
    for number in range(NUMBER_OF_GROUPS):
        stranger = await server.connect(f"stranger{number}")
        await stranger.ask("create", id="1", conversation=f"g{number}", users=["bob"])
    answer = await stranger.ask("create", id="2", conversation="more", users=["bob"])
    assert (answer["code"], answer["retryable"]) == ("user_crowded", True)
    bob = await server.connect("bob")
    assert (await bob.ask("create", id="1", conversation="own", users=["carol"]))["seq"] == 1
    synced = await bob.ask("sync", request=1, vector={})
    assert len(synced["conversations"]) == NUMBER_OF_GROUPS + 1


async def test_a_body_that_escaping_makes_too_long_is_not_stored(server: Server) -> None:
    eve = await server.connect("eve")
    users = [chr(1 + number % 31) * 60 + str(number) for number in range(1_000)]
    answer = await eve.ask("create", id="1", conversation="g", users=users)
    assert answer["code"] == "too_many_users"
    assert (await eve.ask("create", id="2", conversation="g", users=users[:100]))["seq"] == 1


async def test_a_full_list_takes_no_more_from_whomever(start_server: Any) -> None:
    server = await start_server(user_conversations=NUMBER_OF_GROUPS)
    eve = await server.connect("eve")
    async with asyncio.timeout(20):
        number, answer = 0, {}
        while answer.get("code") is None:
            number += 1
            answer = await eve.ask(
                "create", id=f"{number}", conversation=f"{number}", users=["bob"]
            )
            await asyncio.sleep(0.1)
    assert (answer["code"], answer.get("retryable", False)) == ("list_full", False)
    assert NUMBER_OF_GROUPS < number < 10 * NUMBER_OF_GROUPS
    carol = await server.connect("carol")
    await carol.ask("create", id="1", conversation="carols")
    answer = await carol.ask("add", id="2", conversation="carols", users=["bob"])
    assert answer["code"] == "list_full"
    assert (await carol.ask("add", id="3", conversation="carols", users=["dan"]))["seq"] == 2


async def test_first_messages_of_strangers_are_charged_and_further_ones_are_not(
    start_server: Any,
) -> None:
    """To whom they are sent, for all strangers together."""
    server = await start_server(joined_per_second=0.001, joined_burst=2)
    for number, code in enumerate((None, None, "user_crowded")):
        stranger = await server.connect(f"stranger{number}")
        answer = await stranger.ask("send", id="1", to="bob", body="hello")
        assert answer.get("code") == code
    known = await server.connect("stranger0")
    for number in range(5):
        assert "seq" in await known.ask("send", id=f"again{number}", to="bob", body="more")
    bob = await server.connect("bob")
    assert (await bob.ask("send", id="1", to="stranger0", body="yes?"))["seq"] == 8
    assert len((await bob.ask("sync", request=1, vector={}))["conversations"]) == 2


async def test_who_begins_conversations_is_charged_for_them(start_server: Any) -> None:
    server = await start_server(named_per_second=0.001, named_burst=4)
    eve = await server.connect("eve")
    for number, code in enumerate((None, None, "rate_limited")):
        answer = await eve.ask("send", id=f"{number}", to=f"victim{number}", body="hello")
        assert answer.get("code") == code
    assert (await eve.ask("send", id="more", to="victim0", body="hello"))["seq"] == 3
