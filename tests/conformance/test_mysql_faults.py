"""The hot tier on MySQL while its sessions are killed, fenced, held up and cut off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from databases import database, everywhere, holding, kill_session, tell_left
from nothing_cold import NothingCold

from trunkline.adapters.mysql import admission
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql
from trunkline.core.appending import Accepted, Contended, Known, Outcome
from trunkline.core.ids import shard_hash
from trunkline.errors import ServerUnsafe, StorageUnavailable, TrunklineError
from trunkline.model import ClientMessageId, ConversationId, ConversationKey, Draft, Seq, UserId
from trunkline.services.audit import Audit
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import (
    check_view,
    mark_archived,
    name_on_shard_of,
    refusal_of,
    seq_of,
    view,
)
from trunkline.testing.proxy import Proxy

LOW, HIGH = 5, (1 << 64) - 5
"""Keys of the first and of the last shard."""
PATIENCE_SECONDS = 15.0
Identity = tuple[ConversationId, UserId, ClientMessageId]


def identity(draft: Draft) -> Identity:
    return (draft.conversation, draft.sender, draft.client_message_id)


async def until_asked(opened: Database, like: str) -> None:
    """Waits until some session of this database is busy with such a statement."""
    text = (
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
        f"AND id <> CONNECTION_ID() AND info LIKE '{like}'"
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await opened.query(text):
            await asyncio.sleep(0.005)


# --- killed sessions --------------------------------------------------------------------


class Chaos:
    """Writers that resend until acknowledged, and one who kills what serves them."""

    def __init__(self, settings: Settings, writer: Writer, seed: int) -> None:
        self.settings = settings
        self.writer = writer
        self.random = Random(seed)
        self.groups = [name_on_shard_of(key) for key in (LOW, LOW + 1, HIGH, HIGH + 1)]
        self.acked: dict[Identity, Seq] = {}
        self.kills: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.ended = False

    async def write(self, stores: MysqlStores, worker: int, pair: int) -> None:
        """Sends batches; the ids of a pair are the same from both workers."""
        random = Random(1_000 * worker + pair)
        number = 0
        while not self.ended:
            drafts = []
            for _ in range(random.randrange(1, 9)):
                number += 1
                both = number % 3 == 0
                name = f"{pair}-{number}" if both else f"{pair}-{number}-{worker}"
                group = self.groups[number % len(self.groups)]
                sender = ("ann", "bob")[pair % 2]
                drafts.append(self.writer.message(group, sender, name, f"body {name}"))
            await self._send(stores, drafts, random)

    async def _send(self, stores: MysqlStores, drafts: Sequence[Draft], random: Random) -> None:
        left = list(drafts)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while left:
                outcomes = await self._append(stores, left, random)
                again = []
                for draft, outcome in zip(left, outcomes, strict=True):
                    if isinstance(outcome, Accepted | Known):
                        known = self.acked.setdefault(identity(draft), outcome.seq)
                        assert known == outcome.seq, f"I6: {identity(draft)} has two seqs"
                    else:
                        again.append(draft)
                left = again

    async def _append(
        self, stores: MysqlStores, drafts: Sequence[Draft], random: Random
    ) -> Sequence[Outcome | None]:
        """The outcomes, or nothing where the call failed or was given up in the middle."""
        appending = asyncio.ensure_future(self.writer.append(stores.hot, *drafts))
        try:
            if random.random() < 0.05:
                await asyncio.wait([appending], timeout=random.random() * 0.01)
                appending.cancel()
            await asyncio.wait([appending])
        finally:
            appending.cancel()
        if appending.cancelled():
            self.errors["cancelled"] += 1
            return [None] * len(drafts)
        error = appending.exception()
        if error is None:
            return appending.result()
        if not isinstance(error, TrunklineError) or not error.retryable:
            raise error
        self.errors[error.code] += 1
        return [None] * len(drafts)

    async def kill(self, number: int) -> None:
        """Kills sessions at random, every second time one that is committing."""
        async with database(self.settings, number) as opened:
            while not self.ended:
                busy = "COMMIT%" if self.random.randrange(2) else None
                killed = await kill_session(opened, self.random, busy)
                if killed is not None:
                    self.kills["commit" if killed.startswith("COMMIT") else "other"] += 1
                await asyncio.sleep(self.random.random() * 0.006)

    async def run(self, seconds: float) -> None:
        clock = SteppedClock()
        async with open_mysql(self.settings, clock) as one, open_mysql(self.settings, clock) as two:
            keys = (LOW, LOW + 1, HIGH, HIGH + 1)
            for key, name in zip(keys, self.groups, strict=True):
                draft = self.writer.create(name, "ann", "c", ["bob"], key=key)
                await self.writer.append(one.hot, draft)
            async with asyncio.TaskGroup() as group:
                for number in range(len(self.settings.databases)):
                    group.create_task(self.kill(number))
                for worker, stores in enumerate((one, two)):
                    for pair in range(3):
                        group.create_task(self.write(stores, worker, pair))
                await asyncio.sleep(seconds)
                self.ended = True


async def test_killed_sessions_leave_no_hole_and_no_double(
    settings: Settings, writer: Writer, rounds: int
) -> None:
    """I1, I3, I4, I6: kills at any moment, also of a commit; calls that are given up."""
    patient = msgspec.structs.replace(settings, attempts=20)
    chaos = Chaos(patient, writer, seed=rounds)
    await chaos.run(seconds=0.8 * rounds)

    assert chaos.kills.total() > 5 * rounds
    assert len(chaos.acked) > 20 * rounds
    async with open_mysql(settings, SteppedClock()) as stores:
        for name in chaos.groups:
            await check_view(writer, stores.hot, "ann", name)
            row, _ = await view(stores.hot, "ann", name)
            entries = await stores.hot.read(row.key, Seq(0), row.head)
            assert [entry.seq for entry in entries] == list(range(1, row.head + 1))
            found = {(row.id, e.sender, e.client_message_id): e.seq for e in entries}
            assert len(found) == len(entries)
            acked = {i: seq for i, seq in chaos.acked.items() if i[0] == row.id}
            assert {i: found.get(i) for i in acked} == acked
    async with MysqlInspection(settings) as hot:
        report = await Audit(hot, NothingCold(), writer.sealer, SteppedClock()).run()
    assert report.findings == ()


# --- fencing ----------------------------------------------------------------------------


def two_groups_of_one_database() -> tuple[str, str]:
    """Names of two groups whose shards are neighbours."""
    return name_on_shard_of(LOW), name_on_shard_of(LOW + (1 << 54))


async def test_a_shard_that_moved_is_refused_and_the_rest_of_the_batch_commits(
    settings: Settings, writer: Writer
) -> None:
    """I11."""
    moved, other = two_groups_of_one_database()
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(stores.hot, *(writer.create(g, "ann", "c") for g in (moved, other)))
        async with database(settings) as opened:
            raised = f"UPDATE shard SET epoch = epoch + 1 WHERE shard = {shard_hash(moved)}"
            await opened.query(raised)
        drafts = [writer.message(g, "ann", f"{g}{i}") for i in range(3) for g in (moved, other)]
        outcomes = await writer.append(stores.hot, *drafts)

        assert [refusal_of(o) for o in outcomes[::2]] == ["shard_moved"] * 3
        assert [seq_of(o) for o in outcomes[1::2]] == [2, 3, 4]
        assert (await view(stores.hot, "ann", moved))[0].head == 1
        again = await writer.append(stores.hot, *drafts)
        assert [seq_of(o) for o in again[::2]] == [2, 3, 4]
        for group in (moved, other):
            await check_view(writer, stores.hot, "ann", group)


async def test_a_takeover_waits_for_the_commit_of_whoever_has_read_the_epoch(
    settings: Settings, writer: Writer
) -> None:
    """I11: behind the raise nothing of the old epoch can commit any more."""
    group, _ = two_groups_of_one_database()
    shard = shard_hash(ConversationId(group))
    row = f"SELECT ckey FROM conversation WHERE ckey = {LOW} FOR UPDATE"
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        await writer.append(stores.hot, writer.create(group, "ann", "c", key=LOW))
        async with holding(settings, 0, row) as free:
            draft = writer.message(group, "ann", "m")
            appending = asyncio.create_task(writer.append(stores.hot, draft))
            await until_asked(opened, "%FROM conversation%FOR UPDATE%")

            text = f"SELECT epoch FROM shard WHERE shard = {shard} FOR UPDATE SKIP LOCKED"
            assert len(await opened.query(text)) == 0
            raised = f"UPDATE shard SET epoch = epoch + 1 WHERE shard = {shard}"
            raising = asyncio.create_task(opened.query(raised))
            await until_asked(opened, "UPDATE shard%")
            assert not raising.done()
            free.set()
            assert [seq_of(o) for o in await appending] == [2]
            await raising
        late = await writer.append(stores.hot, writer.message(group, "ann", "late"))
        assert refusal_of(late[0]) == "shard_moved"
        await check_view(writer, stores.hot, "ann", group)


# --- trims ------------------------------------------------------------------------------


async def test_a_trim_that_is_killed_leaves_nothing_below_what_it_says_is_trimmed(
    settings: Settings, writer: Writer
) -> None:
    """I1: nobody would come back for entries that are still there and count as gone."""
    group, _ = two_groups_of_one_database()
    first = f"SELECT seq FROM message WHERE ckey = {LOW} AND seq = 1 FOR UPDATE"
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        await writer.append(stores.hot, writer.create(group, "ann", "c", key=LOW))
        await writer.append(stores.hot, *(writer.message(group, "ann", f"m{i}") for i in range(5)))
        await mark_archived(stores.tasks, {ConversationKey(LOW): 4})
        async with holding(settings, 0, first):
            trimming = asyncio.create_task(stores.hot.trim([(ConversationKey(LOW), Seq(4))]))
            while not trimming.done():  # a session that is lost is tried again once
                await kill_session(opened, Random(1), "DELETE FROM message%")
                await asyncio.sleep(0.01)
            with pytest.raises(StorageUnavailable):
                await trimming
        below = (
            "SELECT COUNT(*) FROM message m JOIN conversation c ON m.ckey = c.ckey "
            f"WHERE c.ckey = {LOW} AND m.seq <= c.trimmed_up_to"
        )
        assert (await opened.query(below))[0][0] == 0
        await stores.hot.trim([(ConversationKey(LOW), Seq(4))])
        row, _ = await view(stores.hot, "ann", group)
        assert row.trimmed_up_to == 4
        assert [e.seq for e in await stores.hot.read(row.key, Seq(0), row.head)] == [5, 6]


# --- held conversations -----------------------------------------------------------------


async def test_a_conversation_that_others_hold_holds_up_no_other(
    settings: Settings, writer: Writer
) -> None:
    held, other = two_groups_of_one_database()
    row = f"SELECT ckey FROM conversation WHERE ckey = {LOW} FOR UPDATE"
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(
            stores.hot, writer.create(held, "ann", "c", key=LOW), writer.create(other, "ann", "c")
        )
        drafts = [writer.message(g, "ann", f"{g}{i}") for i in range(2) for g in (held, other)]
        async with holding(settings, 0, row):
            decision = await stores.hot.append(drafts, writer.decide, wait=False)
            assert [isinstance(o, Contended) for o in decision.outcomes] == [True, False] * 2
            assert [seq_of(o) for o in decision.outcomes[1::2]] == [2, 3]
            assert (await view(stores.hot, "ann", other))[0].head == 3
        again = await stores.hot.append(drafts, writer.decide, wait=False)
        assert [o.seq for o in again.outcomes if not isinstance(o, Contended)] == [2, 2, 3, 3]


async def test_a_patient_append_waits_for_a_held_conversation(
    settings: Settings, writer: Writer
) -> None:
    held, _ = two_groups_of_one_database()
    row = f"SELECT ckey FROM conversation WHERE ckey = {LOW} FOR UPDATE"
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        await writer.append(stores.hot, writer.create(held, "ann", "c", key=LOW))
        async with holding(settings, 0, row) as free:
            draft = writer.message(held, "ann", "m")
            appending = asyncio.create_task(stores.hot.append([draft], writer.decide, wait=True))
            await until_asked(opened, "%FROM conversation%FOR UPDATE%")
            assert not appending.done()
            free.set()
            assert [seq_of(o) for o in (await appending).outcomes] == [2]


async def test_an_append_waits_for_no_conversation_but_its_own(
    settings: Settings, writer: Writer
) -> None:
    """Keys of both halves of 64 bits in one database: only these rows are read and locked."""
    place = msgspec.structs.replace(settings.databases[0], shards=(0, 1023))
    whole = msgspec.structs.replace(settings, databases=(place,))
    await migrate_mysql(whole, lambda: b"sentinel")
    created = [writer.create(f"g{i}", "ann", "c") for i in range(600)]
    held = created[300].fresh
    assert held is not None
    row = f"SELECT ckey FROM conversation WHERE ckey = {held.key} FOR UPDATE"
    async with open_mysql(whole, SteppedClock()) as stores:
        await writer.append(stores.hot, *created)
        async with holding(whole, 0, row), asyncio.timeout(PATIENCE_SECONDS):
            drafts = [writer.message(f"g{i}", "ann", "m") for i in range(64)]
            outcomes = (await stores.hot.append(drafts, writer.decide, wait=True)).outcomes
            assert [seq_of(o) for o in outcomes] == [2] * 64


# --- a database that is away ------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "silent"])
async def test_a_group_is_made_while_the_database_of_a_members_list_is_away(
    silent: bool, settings: Settings, writer: Writer
) -> None:
    """The outbox keeps what the list is to be told, and tells it once it can be."""
    if len(settings.databases) == 1:
        pytest.skip("conversation and list stand in one database")
    far = next(u for i in range(99) if shard_hash(u := UserId(f"u{i}")) >= 512)
    groups = [name_on_shard_of(LOW + (shard << 54)) for shard in range(4)]
    place = settings.databases[1]
    async with Proxy(place.host, place.port) as proxy:
        cut = msgspec.structs.replace(place, port=proxy.port)
        through = msgspec.structs.replace(settings, databases=(settings.databases[0], cut))
        async with open_mysql(through, SteppedClock()) as stores:
            if silent:
                proxy.pause()
            else:
                proxy.refusing = True
            proxy.reset_all()
            async with asyncio.timeout(4):  # what was silent once is not waited for again
                for group in groups:
                    draft = writer.create(group, far, "c")
                    assert [seq_of(o) for o in await writer.append(stores.hot, draft)] == [1]
            proxy.refusing = False
            proxy.resume()
            # I4: whoever reads the list is the first to tell it.
            lines = await stores.hot.conversations_of(UserId(far))
            assert {line.conversation for line in lines} == set(groups)
            await everywhere(settings, "UPDATE outbox SET stored_at = stored_at - INTERVAL 1 HOUR")
            assert await tell_left(stores) == 0
            at_once = writer.create(name_on_shard_of(LOW + (9 << 54)), far, "c")
            await writer.append(stores.hot, at_once)
            assert len(await stores.hot.conversations_of(UserId(far))) == len(groups) + 1


# --- servers that may lose what they committed ------------------------------------------


@pytest.mark.parametrize("name", ["innodb_flush_log_at_trx_commit", "innodb_doublewrite"])
async def test_a_server_that_may_lose_commits_is_refused(
    name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_SAFE", {name: "otherwise"})
    with pytest.raises(ServerUnsafe, match=name):
        async with open_mysql(settings, SteppedClock()):
            pass
    on_trial = msgspec.structs.replace(settings, accept_unsafe=True)
    async with open_mysql(on_trial, SteppedClock()) as stores:
        assert await stores.hot.conversations_of(UserId("ann")) == []


@pytest.mark.parametrize(
    ("found", "unsafe"),
    [
        ({}, ""),
        ({"sync_binlog": "0"}, "sync_binlog"),
        ({"sync_binlog": "100"}, "sync_binlog"),
        ({"sync_binlog": "0", "log_bin": "OFF"}, ""),
        ({"innodb_flush_log_at_trx_commit": "2"}, "innodb_flush_log_at_trx_commit"),
        ({"innodb_doublewrite": "OFF"}, "innodb_doublewrite"),
    ],
)
async def test_unsafe_settings_are_told_from_safe_ones(found: dict[str, str], unsafe: str) -> None:
    safe = {
        "log_bin": "ON", "sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1",
        "innodb_doublewrite": "ON",
    }  # fmt: skip

    class Server:
        name = "a server"

        async def query(self, sql: str) -> Sequence[tuple[str, str]]:
            return [(name.upper(), value) for name, value in (safe | found).items()]

    if unsafe:
        with pytest.raises(ServerUnsafe, match=unsafe):
            await admission.check_safe(Server())
    else:
        await admission.check_safe(Server())
