"""The hot tier on real MariaDB and MySQL servers keeps the promises of its ports."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from databases import LaterTasks, Leases, database, emptied, everywhere

from trunkline.adapters.keyring import KeyringSealer
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.mysql import connection as sessions
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import open_mysql
from trunkline.core.appending import Refused
from trunkline.core.ids import single_conversation_id
from trunkline.errors import KeyringBehind, StorageUnavailable
from trunkline.model import NO_SEQ, UserId
from trunkline.ports.cold import ColdStore
from trunkline.ports.generations import Generations
from trunkline.ports.hot import HotStore
from trunkline.ports.keys import WrappedKeys
from trunkline.ports.tasks import TaskStore
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.conformance import (
    ArchivingSuite,
    GenerationsMaker,
    GenerationsSuite,
    HeadsSuite,
    HotStoreSuite,
    MembershipSuite,
    ResendingSuite,
    SteppedClock,
    TaskStoreSuite,
    WrappedKeysSuite,
    Writer,
)
from trunkline.testing.conformance.writer import (
    check_view,
    known_seq_of,
    read_all,
    refusal_of,
    seq_of,
    view,
)
from trunkline.testing.idle_load import IdleLoad


@dataclass
class OpenStores:
    hot: HotStore
    tasks: TaskStore
    cold: ColdStore
    keys: WrappedKeys


class MysqlMaker:
    def __init__(self, settings: Settings) -> None:
        self.clock = SteppedClock()
        self._settings = settings
        self._cold = MemoryColdStore()
        self._leases = Leases(settings, self.clock)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[OpenStores]:
        async with open_mysql(self._settings, self.clock) as stores:
            tasks = LaterTasks(stores.tasks, self._leases)
            yield OpenStores(stores.hot, tasks, self._cold, stores.keys)  # type: ignore[arg-type]

    async def crash(self) -> None:
        """The database outlives its workers: what is committed stays."""


@pytest.fixture
def make_store(settings: Settings) -> MysqlMaker:
    return MysqlMaker(settings)


@pytest.fixture
def make_generations(settings: Settings) -> GenerationsMaker:
    asyncio.run(everywhere(settings, "DELETE FROM deployment WHERE name = 'cache_generation'"))

    @asynccontextmanager
    async def make() -> AsyncIterator[Sequence[Generations]]:
        async with (
            open_mysql(settings, SteppedClock()) as one,
            open_mysql(settings, SteppedClock()) as two,
        ):
            yield one.generations, two.generations

    return make


class TestHotStore(HotStoreSuite): ...


class TestGenerations(GenerationsSuite): ...


class TestHeads(HeadsSuite): ...


class TestMembership(MembershipSuite): ...


class TestResending(ResendingSuite): ...


class TestTaskStore(TaskStoreSuite): ...


class TestArchiving(ArchivingSuite): ...


class TestWrappedKeys(WrappedKeysSuite):
    @pytest.fixture
    def make_keys(self, make_store: MysqlMaker) -> MysqlMaker:
        return make_store


async def test_two_workers_write_one_conversation_without_a_hole_or_a_double(
    settings: Settings, writer: Writer
) -> None:
    """I1, I3, I6: the row lock orders them; the same id sent through both is one entry."""
    clock = SteppedClock()
    async with open_mysql(settings, clock) as one, open_mysql(settings, clock) as other:
        created = await asyncio.gather(
            *(writer.append(s.hot, writer.create("g", "ann", "c", ["bob"])) for s in (one, other))
        )
        assert sorted(type(outcomes[0]).__name__ for outcomes in created) == ["Accepted", "Known"]
        drafts = [writer.message("g", "bob", f"{i:03}") for i in range(60)]
        results = await asyncio.gather(
            *(writer.append(stores.hot, draft) for draft in drafts for stores in (one, other))
        )
        seqs = {}
        for position, (outcome,) in enumerate(results):
            draft = drafts[position // 2]
            assert seqs.setdefault(draft.client_message_id, outcome.seq) == outcome.seq
        assert sorted(seqs.values()) == list(range(2, 62))
        assert seq_of((await writer.append(one.hot, writer.message("g", "ann", "x")))[0]) == 62


async def test_a_lease_ends_by_the_databases_clock_whatever_archivers_believe(
    settings: Settings, writer: Writer
) -> None:
    now, ahead = SteppedClock(), SteppedClock()
    ahead.advance(86_400.0)
    async with open_mysql(settings, now) as one, open_mysql(settings, ahead) as other:
        await writer.append(one.hot, writer.create("g", "ann", "c"))
        (task,) = await one.tasks.lease(10, 30.0)
        assert list(await other.tasks.lease(10, 30.0)) == []
        await one.tasks.failed(task, "tier_unavailable", 30.0)
        assert list(await other.tasks.lease(10, 30.0)) == []
        await Leases(settings, now).end_earlier(31_000)
        assert len(await other.tasks.lease(10, 30.0)) == 1


async def test_what_was_marked_but_not_trimmed_is_trimmed_without_a_further_entry(
    settings: Settings, writer: Writer
) -> None:
    """An archiver ended between the two: the task is still there, whoever leases it trims."""
    clock = SteppedClock()
    async with open_mysql(settings, clock) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        await writer.append(stores.hot, *(writer.message("g", "ann", f"{i}") for i in range(9)))
        (task,) = await stores.tasks.lease(1, 30.0)
        await stores.tasks.archived([(task, task.conversation.head)])
        await Leases(settings, clock).end_earlier(31_000)
        archiver = Archiver(
            stores.hot, stores.tasks, MemoryColdStore(), writer.sealer, clock, Metrics(),
            ServiceSettings(newest_group=4), IdleLoad(), random.Random(1).getrandbits,
        )  # fmt: skip
        assert await archiver.run_once() == 0
        assert [e.seq for e in await read_all(stores.hot, task.conversation)] == [7, 8, 9, 10]
        assert (await stores.tasks.waiting()).conversations == 0


async def test_a_conversation_that_an_operator_took_away_can_be_made_again(
    settings: Settings, writer: Writer
) -> None:
    """What a worker remembers of it leads to no row; nobody else holds that."""
    async with open_mysql(settings, SteppedClock()) as stores:
        for name in ("one", "other"):
            await writer.append(stores.hot, writer.create("g", "ann", f"c-{name}"))
            drafts = [writer.message("g", "ann", f"{name}-{i}") for i in range(3)]
            assert [seq_of(o) for o in await writer.append(stores.hot, *drafts)] == [2, 3, 4]
            await emptied(settings)
        draft = writer.message("g", "ann", "late")
        assert refusal_of((await writer.append(stores.hot, draft))[0]) == "not_member"


async def test_a_batch_larger_than_a_statement_may_be_goes_in_parts(
    settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_PORTION_BYTES", 3_000)
    async with open_mysql(settings, SteppedClock()) as stores:
        groups = ["g", "h"]
        await writer.append(stores.hot, *(writer.create(g, "ann", "c", ["bob"]) for g in groups))
        drafts = [
            writer.message(g, "ann", f"{i}", "x" * (50 * i)) for i in range(40) for g in groups
        ]
        outcomes = await writer.append(stores.hot, *drafts)
        assert [seq_of(o) for o in outcomes[::2]] == list(range(2, 42))
        for group in groups:
            entries = await check_view(writer, stores.hot, "bob", group)
            assert [len(e.body) for e in entries[1:]] == [50 * i for i in range(40)]


async def test_a_resend_that_would_be_refused_today_answers_with_its_seq(
    settings: Settings, writer: Writer
) -> None:
    """I6: who has left since gets the answer that was lost, for what is known and no more."""
    async with open_mysql(settings, SteppedClock()) as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c", ["bob"]))
        sent = [writer.message("g", "bob", "m"), writer.leave("g", "bob", "l")]
        await writer.append(stores.hot, *sent)
        outcomes = await writer.append(
            stores.hot, writer.message("g", "bob", "n"), *sent, writer.message("g", "ann", "o")
        )
        assert refusal_of(outcomes[0]) == "not_member"
        assert [known_seq_of(o) for o in outcomes[1:3]] == [2, 3]
        assert seq_of(outcomes[3]) == 4


async def test_a_cancelled_query_never_gives_its_rows_to_another(settings: Settings) -> None:
    """A connection whose question was cut short is closed."""
    async with database(settings) as opened:
        for number in range(1_000):
            cut = asyncio.create_task(opened.query(f"SELECT {number}, SLEEP(0.001)"))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            assert await opened.query(f"SELECT {-number}") == ((-number,),)


async def test_a_worker_that_has_not_heard_of_a_new_key_creates_nothing_under_a_retired_one(
    settings: Settings, sealers: tuple[KeyringSealer, KeyringSealer]
) -> None:
    """What exists goes on; a creation that was under way ends before the fence stands."""
    before, after = (Writer(sealer) for sealer in sealers)
    async with open_mysql(settings, SteppedClock()) as stores:
        await before.append(stores.hot, before.create("g", "ann", "c", ["bob"]))
        try:
            creating = [
                before.append(stores.hot, before.first_send("ann", f"u{i}", "1")) for i in range(20)
            ]
            *results, _ = await asyncio.gather(
                *creating, stores.keys.fence(2), return_exceptions=True
            )
            stored = sum(not isinstance(result, BaseException) for result in results)
            assert {type(r) for r in results if isinstance(r, BaseException)} <= {KeyringBehind}
            counts = (await stores.keys.counts()).values()
            assert sum(counted.get(1, 0) for counted in counts) == stored + 1
            with pytest.raises(KeyringBehind):
                await before.append(stores.hot, before.first_send("ann", "late", "1"))
            assert (
                await stores.keys.find(single_conversation_id(UserId("ann"), UserId("late")))
                is None
            )
            assert seq_of((await before.append(stores.hot, before.message("g", "ann", "m")))[0])
            assert seq_of((await after.append(stores.hot, after.first_send("ann", "late", "1")))[0])
        finally:
            await everywhere(settings, "UPDATE deployment SET value = '0' WHERE name = 'least_kek'")


async def test_a_group_made_twice_at_once_is_made_once_and_what_came_beside_is_stored(
    settings: Settings, writer: Writer
) -> None:
    """I4, I6: the loser's client message ids were written before it met the other's group."""
    names, rounds = ("ann", "ben"), range(30)
    clock = SteppedClock()
    async with open_mysql(settings, clock) as one, open_mysql(settings, clock) as b:
        await writer.append(one.hot, *(writer.create(name, name, "c") for name in names))
        for number in rounds:
            made, beside = zip(
                *await asyncio.gather(
                    *(
                        writer.append(
                            stores.hot,
                            writer.create(f"group {number}", name, f"c{number}"),
                            writer.message(name, name, f"m{number}"),
                        )
                        for stores, name in zip((one, b), names, strict=True)
                    )
                ),
                strict=True,
            )
            assert sorted(isinstance(outcome, Refused) for outcome in made) == [False, True]
            assert [seq_of(outcome) for outcome in beside] == [number + 2] * 2
        for name in names:
            row, _ = await view(one.hot, name, name)
            stored = await one.hot.read(row.key, NO_SEQ, row.head)
            ids = [entry.client_message_id for entry in stored]
            assert ids == ["c", *(f"m{number}" for number in rounds)]


async def test_what_met_a_row_that_should_not_be_there_is_refused_and_not_taken_for_a_resend(
    settings: Settings, writer: Writer
) -> None:
    """I2, I4: its client message id was written before, and is undone."""
    async with open_mysql(settings, SteppedClock()) as stores, database(settings) as opened:
        await writer.append(stores.hot, writer.create("g", "ann", "c", key=3))
        await opened.query(
            "INSERT INTO message SELECT ckey, 2, sender, 'stray', kind, time_ms, refers_to, "
            "countable, entry_hash, digest, sealed FROM message WHERE ckey = 3 AND seq = 1"
        )
        with pytest.raises(StorageUnavailable):
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
        await opened.query("DELETE FROM message WHERE ckey = 3 AND seq = 2")
        assert seq_of((await writer.append(stores.hot, writer.message("g", "ann", "m")))[0]) == 2
        await check_view(writer, stores.hot, "ann", "g")
