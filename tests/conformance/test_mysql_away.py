"""The hot tier on two databases, one of which refuses connections or answers nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import msgspec
import pytest

from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.memory.cold import MemoryColdStore
from trunkline.adapters.mysql import lists, watch
from trunkline.adapters.mysql import stores as opening
from trunkline.adapters.mysql.connection import connect
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql
from trunkline.core.ids import shard_hash
from trunkline.errors import KeyringWrong, OutcomeUnknown, StorageUnavailable
from trunkline.model import ConversationKey, EndpointId, MarkerMove, OffsetMove, Seq, UserId
from trunkline.services.archiver import Archiver
from trunkline.services.metrics import Metrics
from trunkline.services.settings import ServiceSettings
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import name_on_shard_of, seq_of, view
from trunkline.testing.proxy import Proxy

LOW, HIGH, ORPHAN = 5, (1 << 64) - 5, (1 << 64) - 6
"""Keys of the first and of the last shard."""
PATIENCE_SECONDS = 10.0
QUICK_SECONDS = 1.0
"""Less than a database that is silent is waited for."""

both_troubles = pytest.mark.parametrize("silent", [False, True], ids=["dead", "silent"])


class Torn(msgspec.Struct):
    """The settings of two databases, the first of them behind a proxy."""

    settings: Settings
    proxy: Proxy

    @contextmanager
    def away(self, *, silent: bool) -> Iterator[None]:
        """The first database is away in the context."""
        if silent:
            self.proxy.pause()
        else:
            self.proxy.refusing = True
        self.proxy.reset_all()
        try:
            yield
        finally:
            self.proxy.refusing = False
            self.proxy.resume()


@asynccontextmanager
async def torn(settings: Settings) -> AsyncIterator[Torn]:
    if len(settings.databases) == 1:
        pytest.skip("there is one database")
    place, other = settings.databases
    async with Proxy(place.host, place.port) as proxy:
        through = msgspec.structs.replace(place, port=proxy.port)
        yield Torn(msgspec.structs.replace(settings, databases=(through, other)), proxy)


def user_of(key: int, word: str = "u") -> str:
    """A user whose list stands where a key's conversation does."""
    low = key < 1 << 63
    return next(u for i in range(99) if (shard_hash(u := UserId(f"{word}{i}")) < 512) == low)


async def until(condition: object, seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def archived(stores: MysqlStores, user: str, group: str) -> bool:
    return (await view(stores.hot, user, group))[0].archived_up_to > 0


@asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[MysqlStores]:
    """The stores with what looks after the databases."""
    async with open_mysql(settings, SystemClock()) as stores, asyncio.TaskGroup() as group:
        watching = group.create_task(stores.watch())
        yield stores
        watching.cancel()


def failures(stores: MysqlStores) -> dict[str, str]:
    return {tier.tier: tier.failure() for tier in stores.health()}


async def until_failures(stores: MysqlStores, *wanted: bool) -> None:
    """Waits until these fail, of all databases together, the first and the second."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while tuple(map(bool, failures(stores).values())) != wanted:
            await asyncio.sleep(0.02)


@both_troubles
async def test_markers_and_offsets_are_recorded_where_they_can_be(
    settings: Settings, writer: Writer, silent: bool
) -> None:
    """I9: what a database does not take is refused, the rest is stored."""
    async with torn(settings) as pair:
        quick = msgspec.structs.replace(pair.settings, answer_seconds=0.5, connect_seconds=0.5)
        async with open_mysql(quick, SteppedClock()) as stores:
            groups = [name_on_shard_of(key) for key in (LOW, HIGH)]
            user = UserId(user_of(HIGH))
            await writer.append(stores.hot, *(writer.create(g, user, "c") for g in groups))
            keys = [(await view(stores.hot, user, group))[0].key for group in groups]
            moves = [MarkerMove(key, user, Seq(1), 1) for key in keys]
            offset = OffsetMove(keys[1], user, EndpointId("e"), Seq(1))
            with pair.away(silent=silent), pytest.raises(StorageUnavailable):
                await stores.hot.record(moves, [offset])
            assert (await view(stores.hot, user, groups[1]))[1].marker == 1
            assert await stores.hot.offsets(user, EndpointId("e")) == {keys[1]: 1}


@both_troubles
async def test_one_database_is_archived_while_another_is_away(
    settings: Settings, writer: Writer, silent: bool
) -> None:
    async with torn(settings) as pair, open_mysql(pair.settings, SystemClock()) as stores:
        lost, sound = name_on_shard_of(LOW), name_on_shard_of(HIGH)
        user = user_of(HIGH)
        with pair.away(silent=silent):
            await writer.append(stores.hot, writer.create(sound, user, "c"))
            archivers = [
                Archiver(
                    stores.hot, of.tasks, MemoryColdStore(), writer.sealer, SystemClock(),
                    Metrics(), ServiceSettings(archive_interval_seconds=0.1), of.load,
                    secrets.randbits, name=of.name,
                )
                for of in stores.archiving
            ]  # fmt: skip
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(archiver.run()) for archiver in archivers]
                await until(lambda: archived(stores, user, sound))
                pair.proxy.refusing = False
                pair.proxy.resume()
                await writer.append(stores.hot, writer.create(lost, user, "c"))
                await until(lambda: archived(stores, user, lost), 30.0)
                for task in tasks:
                    task.cancel()


@both_troubles
async def test_lists_are_told_behind_those_of_a_database_that_is_away(
    settings: Settings, writer: Writer, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more lines for it than are read at a time, and one of another database."""
    monkeypatch.setattr(lists, "_LEFT_ROWS", 2)
    monkeypatch.setattr(lists, "_TELL_SECONDS", 0.3)
    monkeypatch.setattr(lists, "_TELL_LEFT_SECONDS", 2.0)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(opening, "SILENT_SECONDS", 0.5)
    async with torn(settings) as pair, watched(pair.settings) as stores:
        far, near = user_of(LOW, "far"), user_of(HIGH, "near")
        origin = stores.shards.of_key(ConversationKey(HIGH))
        with pair.away(silent=silent):
            await until_failures(stores, False, True, False)
            for number in range(5):
                group = name_on_shard_of(HIGH - (number << 54))
                await writer.append(stores.hot, writer.create(group, far, "c"))
            await origin.query("UPDATE outbox SET stored_at = stored_at - INTERVAL 1 HOUR")
            (name, key), *_ = await origin.query("SELECT id, ckey FROM outbox")
            await origin.query(
                "INSERT INTO outbox (number, user, ckey, id, stored_at) VALUES "
                f"({(1 << 63) - 1}, '{near}', {key}, '{name.decode()}', "
                "CURRENT_TIMESTAMP - INTERVAL 1 HOUR)"
            )
            assert await stores.upkeep.tell_step(origin) == 6
            assert len(await stores.hot.conversations_of(UserId(near))) == 1
        await until_failures(stores, False, False, False)
        assert await stores.upkeep.tell_step(origin) == 5
        assert len(await stores.hot.conversations_of(UserId(far))) == 5


async def test_a_task_without_a_conversation_waits_by_itself_and_is_told_of(
    settings: Settings, writer: Writer
) -> None:
    async with open_mysql(settings, SteppedClock()) as stores:
        group = name_on_shard_of(HIGH)
        await writer.append(stores.hot, writer.create(group, "ann", "c"))
        (row, _) = await view(stores.hot, "ann", group)
        archiving = stores.archiving[-1]
        place = stores.shards.all[-1]
        await place.query(f"INSERT INTO archive_task (ckey) VALUES ({ORPHAN})")
        leased = await archiving.tasks.lease(10, 60.0)
        assert [task.conversation.key for task in leased] == [row.key]
        (met,) = archiving.tasks.readings()
        assert met.read() == 1
        found = await place.query(f"SELECT attempts, error FROM archive_task WHERE ckey = {ORPHAN}")
        assert found == ((1, b"data_damaged"),)
        assert await archiving.tasks.lease(10, 60.0) == []


# --- a start, and what is asked while one is away ---------------------------------------------


@both_troubles
async def test_a_database_that_is_away_at_the_start_serves_once_it_is_back(
    settings: Settings, writer: Writer, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the other one does, and what it is asked is refused at once, not waited for."""
    monkeypatch.setattr(watch, "START_SECONDS", 1.0)
    lost, sound = name_on_shard_of(LOW), name_on_shard_of(HIGH)
    user = user_of(HIGH)
    async with torn(settings) as pair, AsyncExitStack() as stack:
        with pair.away(silent=silent):
            stores = await stack.enter_async_context(watched(pair.settings))
            await until_failures(stores, False, True, False)
            outcomes = await writer.append(stores.hot, writer.create(sound, user, "c"))
            assert [seq_of(outcome) for outcome in outcomes] == [1]
            async with asyncio.timeout(QUICK_SECONDS):
                with pytest.raises(StorageUnavailable) as refused:
                    await writer.append(stores.hot, writer.create(lost, user, "c"))
            assert refused.value.retryable
        await until_failures(stores, False, False, False)
        outcomes = await writer.append(stores.hot, writer.create(lost, user, "c"))
        assert [seq_of(outcome) for outcome in outcomes] == [1]


@both_troubles
async def test_a_database_that_goes_is_refused_at_once_until_it_is_back(
    settings: Settings, writer: Writer, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anybody who asks it. The database that is there is not held up."""
    monkeypatch.setattr(watch, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(opening, "SILENT_SECONDS", 0.5)
    lost, sound = name_on_shard_of(LOW), name_on_shard_of(HIGH)
    user = user_of(HIGH)
    async with torn(settings) as pair, watched(pair.settings) as stores:
        await writer.append(stores.hot, writer.create(lost, user, "c"))
        with pair.away(silent=silent):
            await until_failures(stores, False, True, False)
            async with asyncio.timeout(QUICK_SECONDS):
                with pytest.raises(StorageUnavailable):
                    await stores.hot.views(user, [lost])
                await writer.append(stores.hot, writer.create(sound, user, "c"))
        await until_failures(stores, False, False, False)
        await writer.append(stores.hot, writer.message(lost, user, "back", "body"))


async def test_no_database_that_commits_is_told_within_a_second_and_so_is_the_first_that_does(
    settings: Settings, writer: Writer
) -> None:
    """What readiness goes by."""
    place = settings.databases[-1]
    one = msgspec.structs.replace(place, shards=(0, 1023))
    async with Proxy(place.host, place.port) as proxy:
        through = msgspec.structs.replace(
            settings, databases=(msgspec.structs.replace(one, port=proxy.port),)
        )
        await migrate_mysql(
            msgspec.structs.replace(settings, databases=(one,)), lambda: b"sentinel"
        )
        async with watched(through) as stores:
            group = name_on_shard_of(HIGH)
            await writer.append(stores.hot, writer.create(group, "ann", "c"))
            proxy.refusing = True
            proxy.reset_all()
            with pytest.raises((StorageUnavailable, OutcomeUnknown)):
                await writer.append(stores.hot, writer.message(group, "ann", "1", "body"))
            assert list(failures(stores).values()) == ["storage_unavailable"]
            await asyncio.sleep(1.0)
            assert list(failures(stores).values()) == ["storage_unavailable"]
            proxy.refusing = False
            async with asyncio.timeout(1.0):
                while any(failures(stores).values()):
                    await asyncio.sleep(0.02)
            await writer.append(stores.hot, writer.message(group, "ann", "1", "body"))


async def test_a_login_that_is_refused_stops_the_start(settings: Settings) -> None:
    wrong = msgspec.structs.replace(settings, password="wrong")
    with pytest.raises(StorageUnavailable, match="refuses"):
        async with open_mysql(wrong, SystemClock()):
            pass


async def test_a_keyring_that_is_another_is_refused_by_any_database_that_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the first database away, the others tell, too."""
    monkeypatch.setattr(watch, "START_SECONDS", 1.0)

    def agree(sentinel: bytes) -> None:
        raise KeyringWrong

    async with torn(settings) as pair:
        with pair.away(silent=False), pytest.raises(KeyringWrong):
            async with open_mysql(pair.settings, SystemClock(), agree=agree):
                pass


async def test_a_database_that_answers_and_does_not_commit_is_read_and_told_of(
    settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose replica confirms nothing: here somebody holds the row that commits touch."""
    monkeypatch.setattr(opening, "SILENT_SECONDS", 0.5)
    number = 7
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(
            open_mysql(settings, SystemClock(), random_bits=lambda _: number)
        )
        group = name_on_shard_of(HIGH)
        await writer.append(stores.hot, writer.create(group, "ann", "c"))
        last, watching = stores.shards.all[-1], stores.watches[-1]
        last.health.failed(StorageUnavailable())
        other = await connect(settings, settings.databases[-1], ("SET autocommit = 0",))
        await other.execute(
            f"INSERT INTO outbox (number, user, ckey, id) VALUES ({number}, '', 0, '')"
        )
        for _ in range(3):
            await watching.look()
            assert failures(stores)[f"database {last.name}"] == "storage_unavailable"
            assert await stores.hot.views(UserId("ann"), [group])
        await other.execute("ROLLBACK")
        other.close()
        await watching.look()
        assert not failures(stores)[f"database {last.name}"]
