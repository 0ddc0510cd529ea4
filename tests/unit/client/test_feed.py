"""A reader gets every entry once and in order: waiting, lagging, or from the beginning."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.client.endpoint import Endpoint
from trunkline.client.feed import Feed
from trunkline.client.store import Loaded, MemoryStore
from trunkline.core.digest import hash_entry, hasher, to_hex, total
from trunkline.errors import TokenExpired
from trunkline.model import ConversationId, ConversationKind, EndpointId, Entry, Seq, UserId
from trunkline.wire.frames import Changed

ROOM, KEY = ConversationId("room"), bytes(32)


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(Seq(n), UserId("bob"), n, str(n)) for n in range(first, last + 1)]


async def endpoint_with(held: int) -> Endpoint:
    """An endpoint whose store held `held` entries when it was opened."""
    store = await MemoryStore().open(UserId("ann"), EndpointId("phone"))
    endpoint = Endpoint(
        UserId("ann"), EndpointId("phone"), store, await store.load(), lambda _: None
    )
    digest = to_hex(total(hash_entry(e, hasher(ROOM, KEY)) for e in entries(1, held)))
    endpoint.replica.changed(
        [Changed(ROOM, ConversationKind.GROUP, Seq(held), Seq(1), digest, KEY.hex())]
    )
    endpoint.replica.sync_ended(1)
    if held:
        endpoint.replica.push(ROOM, entries(1, held), 0.0)
    await endpoint.save()
    loaded: Loaded = await store.load()
    return Endpoint(UserId("ann"), EndpointId("phone"), store, loaded, lambda _: None)


async def read(feed: Feed, count: int) -> list[int]:
    seqs: list[int] = []
    async with asyncio.timeout(5):
        async for _, entry in feed.entries():
            seqs.append(entry.seq)
            if len(seqs) == count:
                break
    return seqs


@pytest.mark.parametrize(("from_start", "first"), [(False, 11), (True, 1)])
async def test_a_reader_starts_with_what_is_new_or_with_everything(
    from_start: bool, first: int
) -> None:
    endpoint = await endpoint_with(10)
    feed = Feed(endpoint, from_start=from_start, bound=100)
    endpoint.readers.append(feed)
    endpoint.replica.push(ROOM, entries(11, 20), 0.0)
    assert await read(feed, 21 - first) == list(range(first, 21))


async def test_a_reader_made_late_still_starts_where_the_client_started() -> None:
    endpoint = await endpoint_with(10)
    endpoint.replica.push(ROOM, entries(11, 20), 0.0)
    feed = Feed(endpoint, from_start=False, bound=100)
    endpoint.readers.append(feed)
    assert await read(feed, 10) == list(range(11, 21))


@pytest.mark.parametrize("bound", [1, 7, 1000])
async def test_entries_that_arrive_while_the_reader_takes_older_ones_come_once(bound: int) -> None:
    endpoint = await endpoint_with(0)
    feed = Feed(endpoint, from_start=False, bound=bound)
    endpoint.readers.append(feed)
    endpoint.replica.push(ROOM, entries(1, 5), 0.0)
    seqs: list[int] = []
    async with asyncio.timeout(5):
        async for _, entry in feed.entries():
            seqs.append(entry.seq)
            last = endpoint.replica.held[ROOM].last
            if last < 300:
                endpoint.replica.push(ROOM, entries(last + 1, last + 3), 0.0)
            elif entry.seq == last:
                break
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 300


async def test_a_part_that_the_reader_took_from_the_store_already_is_not_given_again() -> None:
    endpoint = await endpoint_with(0)
    feed = Feed(endpoint, from_start=False, bound=100)
    endpoint.replica.push(ROOM, entries(1, 5), 0.0)
    feed.deliver(ROOM, entries(3, 3))  # its place is before: it reads on from the store
    iterator = feed.entries()
    assert [(await anext(iterator))[1].seq for _ in range(4)] == [1, 2, 3, 4]
    endpoint.replica.push(ROOM, entries(6, 6), 0.0)
    feed.deliver(ROOM, entries(4, 6))
    assert [(await anext(iterator))[1].seq for _ in range(2)] == [5, 6]
    await iterator.aclose()


async def test_what_ends_the_client_ends_its_readers() -> None:
    endpoint = await endpoint_with(0)
    feed = Feed(endpoint, from_start=False, bound=100)
    endpoint.readers.append(feed)
    asyncio.get_running_loop().call_soon(endpoint.fail, TokenExpired())
    with pytest.raises(TokenExpired):
        await read(feed, 1)
