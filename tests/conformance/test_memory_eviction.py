"""The cached tier in memory evicts exactly what all present members hold."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from trunkline.adapters.memory.cached import CachedSettings, EvictionCause, MemoryCachedTier
from trunkline.core.appending import ConversationWrite
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    EndpointId,
    Kind,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
)
from trunkline.testing.conformance import SteppedClock

KEY = ConversationKey(1)
USERS = [UserId(name) for name in "abcd"]
LENGTH = 24


def write(first: int, last: int, left: list[UserId]) -> ConversationWrite:
    row = Conversation(KEY, ConversationId("g"), ConversationKind.GROUP, b"", Seq(last))
    entries = [
        StoredEntry(
            Seq(seq),
            USERS[0],
            ClientMessageId(str(seq)),
            Kind.MESSAGE,
            0,
            Seq(0),
            seq,
            b"",
            b"",
            b"",
        )
        for seq in range(first, last + 1)
    ]
    members = {user: Member(user, Seq(1), left_at=Seq(last)) for user in left}
    return ConversationWrite(row, False, entries, [], members)


class Course:
    """The tier beside a model of it that thinks in the plainest way."""

    def __init__(self) -> None:
        self.tier = MemoryCachedTier(SteppedClock(), CachedSettings(conversation_entries=LENGTH))
        self.present = set(USERS)
        self.offsets: dict[UserId, int] = {}
        self.head = self.base = self.committed = 0

    async def append(self, count: int, *, lost: bool, leaves: bool) -> None:
        first, last = self.committed + 1, self.committed + count
        self.committed = last
        if lost:
            return
        left = [min(self.present)] if leaves and len(self.present) > 1 else []
        self.present.difference_update(left)
        await self.tier.append([write(first, last, left)])
        if not self.head:
            self.base = first - 1
        elif first > self.head + 1:
            self.base = last
        self.head = last
        for user in left:
            self.offsets.pop(user, None)
        if last - self.base > LENGTH + LENGTH // 8:
            self.base = last - LENGTH

    async def confirm(self, user: UserId, seq: int) -> None:
        move = OffsetMove(KEY, user, EndpointId("phone"), Seq(seq))
        await self.tier.confirm([move], {KEY: len(self.present)})
        if not self.head:
            return
        self.offsets[user] = max(seq, self.offsets.get(user, 0))
        if len(self.offsets) >= len(self.present):
            self.base = max(self.base, min(self.head, *self.offsets.values()))

    async def check(self) -> None:
        assert self.tier.entry_count == self.head - self.base
        entries = await self.tier.read(KEY, Seq(0), Seq(self.head))
        assert [entry.seq for entry in entries] == list(range(self.base + 1, self.head + 1))


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 12), st.integers(0, 9)),
    st.tuples(st.just("confirm"), st.sampled_from(USERS), st.integers(0, 40)),
    st.tuples(st.just("confirm"), st.sampled_from(USERS), st.integers(0, 40)),
)


@given(st.lists(steps, max_size=40))
def test_what_is_cached_is_what_some_present_member_lacks(course: list[tuple[object, ...]]) -> None:
    async def run() -> None:
        state = Course()
        for kind, what, chance in course:
            if kind == "append":
                await state.append(int(str(what)), lost=chance == 0, leaves=chance == 1)
            elif what in state.present and state.committed:
                # Mostly near the head, where offsets stand in life.
                seq = max(0, state.committed - int(str(chance)) // 2)
                await state.confirm(UserId(str(what)), seq)
            await state.check()

    asyncio.run(run())


async def test_a_straggler_frees_what_it_passes_step_by_step() -> None:
    """A page at a time, while all others are at the head."""
    tier = MemoryCachedTier(SteppedClock(), CachedSettings(conversation_entries=50_000))
    await tier.append([write(1, 50_000, [])])
    phone, members = EndpointId("phone"), {KEY: 2}
    await tier.confirm([OffsetMove(KEY, USERS[0], phone, Seq(50_000))], members)
    for seq in range(100, 50_001, 100):
        await tier.confirm([OffsetMove(KEY, USERS[1], phone, Seq(seq))], members)
        assert tier.entry_count == 50_000 - seq
    assert tier.evicted[EvictionCause.READ] == 50_000
