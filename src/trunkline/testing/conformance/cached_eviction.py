"""Suite of what a cached tier lets go: exactly what all present members hold, or lengths bound."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.appending import ConversationWrite
from trunkline.core.digest import DIGEST_BYTES
from trunkline.model import (
    ClientMessageId,
    Conversation,
    ConversationId,
    ConversationKey,
    ConversationKind,
    Digest,
    EndpointId,
    Kind,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserId,
)
from trunkline.ports.cached import CachedTier

BoundedTierMaker = Callable[[int], AbstractAsyncContextManager[CachedTier]]
"""Opens a tier that cuts a conversation back to so many entries once it is an eighth over."""

USERS = [UserId(name) for name in "abcd"]
LENGTH = 24
_keys = count(1)


def write(key: ConversationKey, first: int, last: int, left: Sequence[UserId]) -> ConversationWrite:
    """Entries first..last, and who left with the last of them."""
    row = Conversation(
        key, ConversationId("g"), ConversationKind.GROUP, b"", Seq(last), digest=Digest(last)
    )
    entries = [
        StoredEntry(
            Seq(seq), USERS[0], ClientMessageId(str(seq)), Kind.MESSAGE, 0, Seq(0), seq,
            (1).to_bytes(DIGEST_BYTES), seq.to_bytes(DIGEST_BYTES), b"sealed",
        )
        for seq in range(first, last + 1)
    ]  # fmt: skip
    members = {user: Member(user, Seq(1), left_at=Seq(last)) for user in left}
    return ConversationWrite(row, False, entries, [], members)


class Course:
    """The tier beside a model of it that thinks in the plainest way."""

    def __init__(self, tier: CachedTier) -> None:
        self.tier = tier
        self.key = ConversationKey(next(_keys))
        self.present = set(USERS)
        self.offsets: dict[UserId, int] = {}
        self.head = self.base = self.committed = 0

    async def append(self, number: int, *, lost: bool, leaves: bool) -> None:
        """The next entries; they may never reach the tier, someone may leave with them."""
        first, last = self.committed + 1, self.committed + number
        self.committed = last
        if lost:
            return
        left = [min(self.present)] if leaves and len(self.present) > 1 else []
        self.present.difference_update(left)
        await self.tier.append([write(self.key, first, last, left)])
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
        """One member's offset."""
        move = OffsetMove(self.key, user, EndpointId("phone"), Seq(seq))
        await self.tier.confirm([move], {self.key: len(self.present)})
        if not self.head:
            return
        self.offsets[user] = max(seq, self.offsets.get(user, 0))
        if len(self.offsets) >= len(self.present):
            self.base = max(self.base, min(self.head, *self.offsets.values()))

    async def check(self) -> None:
        """The tier holds what the model holds, unchanged."""
        found = await self.tier.read(self.key, Seq(0), Seq(self.head))
        if self.base == self.head:
            assert list(found) == []
        else:
            assert list(found) == write(self.key, self.base + 1, self.head, []).entries

    async def run(self, steps: Sequence[tuple[str, int, int]]) -> None:
        """Goes through steps of (what, how much, chance)."""
        for what, number, chance in steps:
            if what == "append":
                await self.append(number, lost=chance == 0, leaves=chance == 1)
            elif USERS[number % 4] in self.present and self.committed:
                # Mostly near the head, where offsets stand in life.
                seq = max(0, self.committed - chance // 2)
                await self.confirm(USERS[number % 4], seq)
            await self.check()


_steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 12), st.integers(0, 9)),
    st.tuples(st.just("confirm"), st.integers(0, 3), st.integers(0, 40)),
    st.tuples(st.just("confirm"), st.integers(0, 3), st.integers(0, 40)),
)


class CachedEvictionSuite:
    """What leaves the tier, and what stays. Fixture: `make_bounded_tier`."""

    def test_what_is_cached_is_what_some_present_member_lacks(
        self, make_bounded_tier: BoundedTierMaker
    ) -> None:
        """Up to the bound of its length (DESIGN section 5)."""

        async def run(steps: Sequence[tuple[str, int, int]]) -> None:
            async with make_bounded_tier(LENGTH) as tier:
                await Course(tier).run(steps)

        @given(st.lists(_steps, max_size=40))
        def holds(steps: list[tuple[str, int, int]]) -> None:
            asyncio.run(run(steps))

        holds()

    async def test_a_straggler_frees_what_it_passes_step_by_step(
        self, make_bounded_tier: BoundedTierMaker
    ) -> None:
        """A page at a time, while all others are at the head."""
        key, phone, last = ConversationKey(next(_keys)), EndpointId("phone"), 20_000
        async with make_bounded_tier(last) as tier:
            await tier.append([write(key, 1, last, [])])
            members = {key: 2}
            await tier.confirm([OffsetMove(key, USERS[0], phone, Seq(last))], members)
            for seq in range(100, last + 1, 100):
                await tier.confirm([OffsetMove(key, USERS[1], phone, Seq(seq))], members)
                if seq < last:
                    front = await tier.read(key, Seq(0), Seq(seq + 1))
                    assert [entry.seq for entry in front] == [seq + 1]
            assert not await tier.read(key, Seq(0), Seq(last))

    async def test_a_long_conversation_is_cut_to_its_newest(
        self, make_bounded_tier: BoundedTierMaker
    ) -> None:
        """A group where someone never reads is bounded by length."""
        key = ConversationKey(next(_keys))
        async with make_bounded_tier(16) as tier:
            for last in range(5, 55, 5):
                await tier.append([write(key, last - 4, last, [])])
                found = await tier.read(key, Seq(0), Seq(last))
                assert [entry.seq for entry in found] == list(
                    range(last + 1 - len(found), last + 1)
                )
                assert len(found) == last if last <= 18 else 16 <= len(found) <= 18
