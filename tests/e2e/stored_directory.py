"""Fills a data directory with the real stores, and ends cleanly or by kill -9.

Run as `python stored_directory.py DIR ENTRIES [--kill]`: 6 groups with names, a single
conversation, members who come and go, offsets, markers; the older half archived, trimmed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from random import Random

from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.app.keys import open_sealer
from trunkline.core import ids
from trunkline.core.appending import Accepted, AppendPlanner, Known
from trunkline.model import (
    JSON,
    TEXT,
    ClientMessageId,
    ConversationId,
    Draft,
    EndpointId,
    FreshKey,
    Kind,
    MarkerMove,
    OffsetMove,
    Seq,
    UserId,
    place_of,
)
from trunkline.ports.sealer import Sealer
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.idle_load import IdleLoad

GROUPS = 6
USERS = [UserId(f"user-{number}") for number in range(8)]
NAMES = ["Ops", "Ops", "Kitchen", "Hall", "Yard", "Roof"]
SINGLE = ids.single_conversation_id(USERS[0], USERS[1])
SETTINGS = Settings(materialiser="thread", slice_age_seconds=3600, idle_seconds=3600)


def text_of(number: int) -> str:
    """The body of a message, findable in the clear if it were."""
    return f"message number {number} said in the clear, and a little more to fill a line"


class Filler:
    """Appends to a directory's stores."""

    def __init__(self, stores: EmbeddedStores, sealer: Sealer) -> None:
        self.stores = stores
        self.sealer = sealer
        self.planner = AppendPlanner(sealer.cipher, sealer.macs, group_members=100)
        self.random = Random(3)
        self.clock = SystemClock()

    def fresh(self, conversation: ConversationId) -> FreshKey:
        shard = ids.shard_hash(conversation)
        key = ids.conversation_key(shard, self.random.getrandbits(54))
        return FreshKey(key, self.sealer.new_wrapped_key(place_of(key, conversation)))

    def draft(self, conversation: str, sender: UserId, number: str, kind: Kind, **more: object):
        return Draft(
            ConversationId(conversation), sender, ClientMessageId(number), kind,
            self.clock.now_ms(), **more,
        )  # fmt: skip

    async def append(self, *drafts: Draft) -> None:
        decision = await self.stores.hot.append(drafts, self.planner.decide)
        for outcome in decision.outcomes:
            assert isinstance(outcome, Accepted | Known), outcome

    async def create(self) -> None:
        for number in range(GROUPS):
            room = ConversationId(f"room-{number}")
            await self.append(
                self.draft(
                    room, USERS[0], "create", Kind.CREATED, users=tuple(USERS[:6]),
                    name=NAMES[number], fresh=self.fresh(room),
                )
            )  # fmt: skip
        await self.append(
            self.draft(
                SINGLE, USERS[0], "hello", Kind.MESSAGE, body="hello you", content_type=TEXT,
                users=(USERS[0], USERS[1]), name="the-two", fresh=self.fresh(SINGLE),
            )
        )  # fmt: skip

    async def talk(self, first: int, last: int) -> None:
        for start in range(first, last, 64):
            drafts = []
            for number in range(start, min(start + 64, last)):
                body, content_type = text_of(number), TEXT
                if number % 50 == 7:
                    body, content_type = f'{{"number":{number}}}', JSON
                room = f"room-{number % GROUPS}"
                drafts.append(
                    self.draft(
                        room, USERS[number % 5], f"m{number:08d}", Kind.MESSAGE, body=body,
                        content_type=content_type,
                    )
                )  # fmt: skip
            await self.append(*drafts)

    async def come_and_go(self, number: int) -> None:
        for group in range(GROUPS):
            room = f"room-{group}"
            await self.append(
                self.draft(room, USERS[0], f"in{number}", Kind.JOINED, users=(USERS[6], USERS[7])),
                self.draft(room, USERS[7], f"hi{number}", Kind.MESSAGE, body="I am here"),
                self.draft(room, USERS[0], f"out{number}", Kind.LEFT, users=(USERS[6],)),
                self.draft(room, USERS[7], f"go{number}", Kind.LEFT, users=(USERS[7],)),
            )

    async def read(self) -> None:
        """Offsets at the end of each view, a marker in the middle."""
        for group in range(GROUPS):
            views = await self.stores.hot.views(USERS[5], [ConversationId(f"room-{group}")])
            ((conversation, _),) = views.values()
            key, head = conversation.key, conversation.head
            (entry,) = await self.stores.hot.read(key, Seq(head - 6), Seq(head - 5))
            await self.stores.hot.record(
                [MarkerMove(key, USERS[5], entry.seq, entry.countable)],
                [OffsetMove(key, USERS[5], EndpointId("phone"), head)],
            )

    async def archive(self) -> None:
        archiver = Archiver(
            self.stores.hot, self.stores.tasks, self.stores.cold, self.sealer, self.clock,
            Metrics(), ServiceSettings(newest_group=100, archive_entries_per_second=1_000_000),
            IdleLoad(), secrets.randbits,
        )  # fmt: skip
        while await archiver.run_once():
            continue


async def fill(path: Path, entries: int, *, kill: bool) -> None:
    """Fills the directory; with `kill` the process ends in the middle of its work."""
    sealer = open_sealer(path)
    async with open_embedded(path, SETTINGS, SystemClock()) as stores:
        filler = Filler(stores, sealer)
        await filler.create()
        await filler.talk(0, entries // 2)
        await filler.come_and_go(1)
        await filler.archive()
        await stores.materialise()
        await filler.talk(entries // 2, entries)
        await filler.come_and_go(2)
        await filler.read()
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2]), kill="--kill" in sys.argv))
