"""When an endpoint is complete, and whether what its store holds is its view and nothing else."""

import asyncio

from trunkline.client import Client
from trunkline.core.digest import hash_entry, hasher, to_bytes, total
from trunkline.core.views import view_of
from trunkline.model import Seq
from trunkline.ports.hot import HotStore
from trunkline.testing.device import Device
from trunkline.testing.history import Broken, History, spans_of
from trunkline.testing.oracle import Oracle

_NOW_SECONDS = 0.001


async def lacking(device: Device, hot: HotStore) -> list[str]:
    """What an endpoint still lacks, a line each; none: it is complete."""
    client = device.client
    name = f"{device.user}/{device.endpoint}"
    if client is None:
        return [f"{name} is off"]
    if not await _is_sent(client):
        return [f"{name} has something to send"]
    if not device.keeps_copies:
        return []
    listed = [line.conversation for line in await hot.conversations_of(device.user)]
    views = await hot.views(device.user, listed)
    held = {info.conversation: info for info in client.conversations()}
    lack: list[str] = []
    for conversation, (row, member) in views.items():
        view, info = view_of(row, member), held.get(conversation)
        if info is None:
            lack.append(f"{name} does not know {conversation!r}")
            continue
        there = (view.first, view.last, view.marker, view.unread, view.left)
        here = (info.first, info.last, info.marker, info.unread, info.left)
        if here != there:
            lack.append(f"{name} has {conversation!r} {here}, not {there}")
    return lack


async def _is_sent(client: Client) -> bool:
    try:
        async with asyncio.timeout(_NOW_SECONDS):
            await client.wait_sent()
    except TimeoutError:
        return False
    return True


async def judge_copies(device: Device, history: History, oracle: Oracle) -> None:
    """Holds an endpoint's store against what really happened; raises `Broken`."""
    name = f"{device.user!r} on {device.endpoint!r}"
    for body, client_message_id in device.durable.items():
        if not oracle.is_settled(device.user, client_message_id, body):
            raise Broken(f"I4: {name} had {body!r} in its outbox for good; it is gone.")
    if not device.keeps_copies:
        return
    store = await device.store.open(device.user, device.endpoint)
    copies = {copy.conversation: copy for copy in (await store.load()).copies}
    for there, spans in spans_of(history, device.user):
        copy, span = copies.pop(there.id, None), spans[-1]
        last = there.head if span.last is None else span.last
        if copy is None or (copy.first, copy.last) != (span.first, last):
            raise Broken(f"I1: {name} holds {copy} of {there.id!r}, not {span.first} to {last}.")
        entries = await store.read(there.id, Seq(0), Seq(1 << 40))
        if entries != list(there.within(span.first, last)):
            raise Broken(f"I2: {name} holds another copy of {there.id!r}.")
        entry_hash = hasher(there.id, copy.digest_key)
        digest = total(hash_entry(entry, entry_hash) for entry in entries)
        if copy.digest_key != there.digest_key or copy.digest != to_bytes(digest):
            raise Broken(f"I14: {name} has another digest of {there.id!r}.")
        if copy.unread != there.messages(copy.marker, last):
            raise Broken(f"{name} counts {copy.unread} unread of {there.id!r}.")
        oracle.judge_marker(device.user, there.id, copy.marker)
    if copies:
        raise Broken(f"I13: {name} holds {list(copies)}.")
    await store.close()
