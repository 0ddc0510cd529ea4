"""The store whose member rows are checked: what somebody without a key wrote is no membership."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import pytest
from held_records import a_keyring
from structlog.testing import capture_logs

from trunkline.adapters.keyring import KeyringSealer
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.core.appending import Accepted, AppendState, Refused
from trunkline.errors import SealBroken
from trunkline.model import Conversation, ConversationId, ConversationKey, Member, Seq, UserId
from trunkline.services.authentic import AuthenticHotStore
from trunkline.services.metrics import Metrics
from trunkline.testing.conformance.writer import Writer

GROUP, EVE, BOB = ConversationId("g"), UserId("eve"), UserId("bob")


class Tampered(MemoryHotStore):
    """A store into which somebody without a key has written member rows."""

    rows: dict[UserId, Member]

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        if user not in self.rows:
            return await super().views(user, ids)
        ((conversation, _),) = (await super().views(UserId("ann"), ids)).values()
        return {conversation.id: (conversation, self.rows[user])}

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        return {**await super().members(key), **self.rows}


@pytest.fixture
async def stores() -> tuple[Writer, Tampered, AuthenticHotStore]:
    """A group of ann and bob; eve's row is a copy of ann's, and bob's begins earlier."""
    sealer = KeyringSealer(a_keyring())
    writer, hot = Writer(sealer), Tampered(SystemClock())
    hot.rows = {}
    await writer.append(hot, writer.create("g", "ann", "1", []))
    await writer.append(hot, writer.message("g", "ann", "2"), writer.join("g", "ann", "3", ["bob"]))
    _, ann = (await hot.views(UserId("ann"), [GROUP]))[GROUP]
    _, bob = (await hot.views(BOB, [GROUP]))[GROUP]
    hot.rows = {
        EVE: msgspec.structs.replace(ann, user=EVE),
        BOB: msgspec.structs.replace(bob, visible_from=Seq(1)),
    }
    return writer, hot, AuthenticHotStore(hot, sealer.macs, Metrics())


@pytest.mark.parametrize("user", [EVE, BOB])
async def test_a_row_that_was_put_there_gives_no_view_and_is_told(
    stores: tuple[Writer, Tampered, AuthenticHotStore], user: UserId
) -> None:
    _, hot, authentic = stores
    assert GROUP in await hot.views(user, [GROUP])
    with capture_logs() as told:
        for _ in range(2):
            assert GROUP not in await authentic.views(user, [GROUP])
    assert [(line["event"], line["user"]) for line in told] == [("member_not_authentic", user)]
    assert GROUP in await authentic.views(UserId("ann"), [GROUP])


async def test_nobody_is_pushed_to_by_a_row_that_was_put_there(
    stores: tuple[Writer, Tampered, AuthenticHotStore],
) -> None:
    _, hot, authentic = stores
    conversation, _ = (await hot.views(UserId("ann"), [GROUP]))[GROUP]
    assert set(await authentic.members(conversation.key)) == {UserId("ann")}


def _decided(writer: Writer, conversation: Conversation, members: list[Member], *drafts: object):
    rows = {member.user: member for member in members}
    state = AppendState({GROUP: conversation}, {GROUP: rows}, {})
    return writer.decide(drafts, state)


async def test_an_append_by_a_row_that_was_put_there_is_refused_and_the_rest_goes_through(
    stores: tuple[Writer, Tampered, AuthenticHotStore],
) -> None:
    writer, hot, _ = stores
    conversation, ann = (await hot.views(UserId("ann"), [GROUP]))[GROUP]
    decision = _decided(
        writer, conversation, [ann, hot.rows[EVE]],
        writer.message("g", "eve", "4"), writer.message("g", "ann", "5"),
    )  # fmt: skip
    refused, accepted = decision.outcomes
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, SealBroken)
    assert isinstance(accepted, Accepted)


async def test_a_row_whose_end_was_taken_away_is_refused_also_where_the_sender_was_known(
    stores: tuple[Writer, Tampered, AuthenticHotStore],
) -> None:
    """The MAC of one who left does not hold for one who is there."""
    writer, hot, _ = stores
    conversation, ann = (await hot.views(UserId("ann"), [GROUP]))[GROUP]
    (left,) = _decided(
        writer, conversation, [ann], writer.message("g", "ann", "4"), writer.leave("g", "ann", "5")
    ).writes
    gone = left.members[UserId("ann")]
    back = msgspec.structs.replace(gone, left_at=Seq(0))
    (outcome,) = _decided(
        writer, left.conversation, [back], writer.message("g", "ann", "6")
    ).outcomes
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, SealBroken)


async def test_removing_a_row_that_was_put_there_gives_it_no_mac(
    stores: tuple[Writer, Tampered, AuthenticHotStore],
) -> None:
    """Else a removal would make its view a rightful one."""
    writer, hot, _ = stores
    conversation, ann = (await hot.views(UserId("ann"), [GROUP]))[GROUP]
    decision = _decided(
        writer, conversation, [ann, hot.rows[EVE]], writer.leave("g", "ann", "4", ["eve"])
    )
    assert isinstance(decision.outcomes[0], Refused)
    assert not decision.writes


async def test_one_row_that_was_put_there_keeps_nobody_from_the_others(
    stores: tuple[Writer, Tampered, AuthenticHotStore],
) -> None:
    writer, hot, authentic = stores
    await writer.append(hot, writer.create("h", "bob", "1", []))
    other = ConversationId("h")
    true = await MemoryHotStore.views(hot, BOB, [GROUP, other])

    async def both(
        user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        return {**true, GROUP: (true[GROUP][0], hot.rows[user])}

    hot.views = both  # type: ignore[method-assign]
    assert set(await authentic.views(BOB, [GROUP, other])) == {other}
