"""Rate and CPU of the hot store on one MySQL or MariaDB: real planner, real sealing, real disk.

`bench/stores/mysql_hot.py [--seconds S] [--port P] [--pid PID]`. One appender, as a worker has
one a database; conversations of four who talk, rising client message ids, bodies of 300 bytes.
CPU a message: of the appender as a whole, of it in `decide`, and of the server whose PID is
given. Then how large a row is, with bodies of chat in the sizes of `redis_cached.py`. Takes a
database of its own, `trunkline_bench`.
"""

import argparse
import asyncio
import bisect
import gc
import itertools
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncmy
import msgspec
import uvloop
from texts import bodies

from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.settings import DatabaseSettings, Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql
from trunkline.core.appending import Accepted, AppendPlanner, AppendState, Decision
from trunkline.core.ids import conversation_key, shard_hash, uuid7
from trunkline.model import ConversationId, Draft, FreshKey, Kind, UserId, place_of

DATABASE = "trunkline_bench"
USERS = [UserId(f"user-{number:04d}") for number in range(4)]
CONVERSATIONS = {"64": 64, "20,000 Zipf": 20_000}
BODY_BYTES = (58, 300)
"""The mean of the real data; what the rates are measured with."""
ROWS = 200_000
_DATA_LENGTH = 6
"""Its column in SHOW TABLE STATUS."""
TICKS = os.sysconf("SC_CLK_TCK")


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process took so far; 0 without one."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def picker(name: str, rnd: random.Random) -> Callable[[], ConversationId]:
    """Draws conversations: evenly, or by Zipf's law."""
    count = CONVERSATIONS[name]
    ids = [ConversationId(f"conversation-{number:05d}") for number in range(count)]
    if "Zipf" not in name:
        return lambda: ids[rnd.randrange(count)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
    return lambda: ids[bisect.bisect(weights, rnd.random() * weights[-1])]


async def create(stores: MysqlStores, planner: AppendPlanner, sealer) -> None:
    """Makes the conversations."""
    now = SystemClock().now_ms()
    for start in range(0, max(CONVERSATIONS.values()), 256):
        drafts = [
            Draft(
                name := ConversationId(f"conversation-{number:05d}"), USERS[0],
                uuid7(now, random.getrandbits(74)), Kind.CREATED, now,
                users=tuple(USERS),
                fresh=FreshKey(
                    key := conversation_key(shard_hash(name), random.getrandbits(54)),
                    sealer.new_wrapped_key(place_of(key, name)),
                ),
            )
            for number in range(start, min(start + 256, max(CONVERSATIONS.values())))
        ]  # fmt: skip
        await stores.hot.append(drafts, planner.decide)


class TimedDecide:
    """`decide`, and the CPU that it took."""

    def __init__(self, planner: AppendPlanner) -> None:
        self._planner = planner
        self.seconds = 0.0

    def __call__(self, drafts: Sequence[Draft], state: AppendState) -> Decision:
        began = time.process_time()
        decision = self._planner.decide(drafts, state)
        self.seconds += time.process_time() - began
        return decision


class Drafts:
    """Messages of four who talk in some of the conversations."""

    def __init__(self, name: str, body_bytes: int) -> None:
        self._rnd = random.Random(7)
        self._pick = picker(name, self._rnd)
        self._bodies = bodies(body_bytes)
        self._made = 0

    def next(self, size: int) -> list[Draft]:
        """The next of them."""
        now = time.time_ns() // 1_000_000
        drafts = [
            Draft(
                self._pick(), USERS[self._rnd.randrange(4)],
                uuid7(now, (self._made + i) << 40), Kind.MESSAGE, now,
                self._bodies[(self._made + i) % len(self._bodies)],
            )
            for i in range(size)
        ]  # fmt: skip
        self._made += size
        return drafts


async def measure(
    stores: MysqlStores, planner: AppendPlanner, name: str, size: int, seconds: float, pid: int
) -> str:
    """Appends for some seconds; the line of the table."""
    made = Drafts(name, BODY_BYTES[-1])
    decide = TimedDecide(planner)
    latencies: list[float] = []
    entries, client, server = 0, 0.0, cpu_of(pid)
    while sum(latencies) < seconds:
        drafts = made.next(size)
        began, cpu = time.perf_counter(), time.process_time()
        decision = await stores.hot.append(drafts, decide)
        client += time.process_time() - cpu
        latencies.append(time.perf_counter() - began)
        assert all(isinstance(outcome, Accepted) for outcome in decision.outcomes)
        entries += size
    server = cpu_of(pid) - server
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    return (
        f"| {name} | {size} | {entries / sum(latencies):,.0f} | {client / entries * 1e6:.1f} "
        f"| {decide.seconds / entries * 1e6:.1f} | {server / entries * 1e6:.1f} "
        f"| {p50:.1f} | {p99:.1f} |"
    )


async def measure_bytes(settings: Settings, body_bytes: int) -> str:
    """Appends many messages to new tables; the line of the table."""
    async with opened(settings) as (stores, planner):
        made = Drafts("20,000 Zipf", body_bytes)
        for _ in range(ROWS // 256):
            await stores.hot.append(made.next(256), planner.decide)
        (database,) = stores.shards.all
        sizes = []
        for table in ("message", "idempotency"):
            await database.query(f"ANALYZE TABLE {table}")
            ((rows,),) = await database.query(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
            (status,) = await database.query(f"SHOW TABLE STATUS LIKE '{table}'")
            sizes.append(f"{status[_DATA_LENGTH] / rows:.0f}")
    return f"| {body_bytes} | {' | '.join(sizes)} |"


async def driver_paths(port: int) -> None:
    """CPU that the ways to ask take in the client: a cursor, the connection, many in one."""
    raw = await asyncmy.connect(
        host="127.0.0.1", port=port, user="trunkline", password="trunkline", autocommit=True
    )
    size = 5

    async def cursor() -> None:
        for _ in range(size):
            asked = raw.cursor()
            await asked.execute("SELECT 1")
            await asked.fetchall()

    async def connection() -> None:
        for _ in range(size):
            await raw.query("SELECT 1")

    async def together() -> None:
        asked = raw.cursor()
        await asked.execute(";".join(["SELECT 1"] * size))
        while await asked.nextset():
            await asked.fetchall()

    ways = (cursor, connection, together)
    seconds = dict.fromkeys(ways, 0.0)
    rounds = 600
    for _ in range(rounds):
        for way in ways:
            began = time.process_time()
            await way()
            seconds[way] += time.process_time() - began
    told = (f"{way.__name__} {seconds[way] / rounds / size * 1e6:.1f}" for way in ways)
    print(f"client µs a statement: {', '.join(told)}\n")
    raw.close()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[MysqlStores, AppendPlanner]]:
    """New tables with all conversations."""
    at = (msgspec.structs.replace(settings.databases[0], database="trunkline"),)
    plain = Database(msgspec.structs.replace(settings, databases=at), at[0], random.random)
    await plain.query(f"DROP DATABASE IF EXISTS {DATABASE}")
    await plain.query(f"CREATE DATABASE {DATABASE}")
    await migrate_mysql(settings, lambda: b"sentinel")
    with tempfile.TemporaryDirectory() as folder:
        sealer = open_keyring(Path(folder) / "keyring.json", create=True)
        planner = AppendPlanner(sealer.cipher, sealer.macs, group_members=500)
        async with open_mysql(settings, SystemClock()) as stores:
            await create(stores, planner, sealer)
            yield stores, planner
    await plain.query(f"DROP DATABASE {DATABASE}")
    await plain.close()


async def run(seconds: float, port: int, pid: int) -> None:
    """Prints tables in Markdown."""
    await driver_paths(port)
    settings = Settings(
        databases=(DatabaseSettings(port=port, database=DATABASE),), password="trunkline"
    )
    async with opened(settings) as (stores, planner):
        print(
            "| conversations | entries a commit | entries/s | client µs an entry "
            "| of it decide | server µs | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|"
        )
        for name in CONVERSATIONS:
            for size in (64, 256):
                line = await measure(stores, planner, name, size, seconds, pid)
                print(line, flush=True)
    print("\n| bytes of a body | of a row of message | of a client message id |\n|---|---|---|")
    for body_bytes in BODY_BYTES:
        print(await measure_bytes(settings, body_bytes), flush=True)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description="Measures appends to the hot store on MySQL.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--port", type=int, default=33061)
    parser.add_argument("--pid", type=int, default=0)
    arguments = parser.parse_args()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as the server has it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(arguments.seconds, arguments.port, arguments.pid))


if __name__ == "__main__":
    main()
