"""Redis as the cached tier: the adapter's own connection beside redis-py, appends, bytes kept.

`bench/stores/redis_cached.py [SECONDS]`. Starts a Redis of its own on a free port. Each table's
lines are measured in turns in one run: take them as ratios.
"""

import asyncio
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import hiredis
import redis.asyncio
import uvloop
from texts import bodies

from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.memory.hot import MemoryHotStore
from trunkline.adapters.redis.connection import Connection
from trunkline.adapters.redis.dialling import Address, Dialler
from trunkline.adapters.redis.link import pack
from trunkline.adapters.redis.refusals import Refusals
from trunkline.adapters.redis.scripts import SHAS
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores, open_redis
from trunkline.core.appending import AppendPlanner, ConversationWrite
from trunkline.core.ids import conversation_key, uuid7
from trunkline.model import ConversationId, Draft, FreshKey, Kind, Seq, UserId, WorkerId, place_of

PIPELINE = 64
BATCH = 256
TURNS = 6
SETTINGS = {"answer_seconds": 30.0, "read_seconds": 30.0}
USERS = [UserId(f"user-{number:04d}") for number in range(50)]

Measured = tuple[float, float, float]
"""Done a second; this process's µs of CPU for each; Redis's."""


class Server:
    """A Redis with nothing in it, and what it says of itself."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
             "--dir", str(folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.client = redis.Redis(port=self.port)
        for _ in range(200):
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)

    def cpu_seconds(self) -> float:
        facts = self.client.info("cpu")
        return float(facts["used_cpu_user"] + facts["used_cpu_sys"])

    def bytes_used(self) -> int:
        return int(self.client.info("memory")["used_memory"])


async def timed(
    server: Server, seconds: float, size: int, work: Callable[[], Awaitable[object]]
) -> Measured:
    """Repeats some work of `size` things for a while."""
    done, started = 0, time.perf_counter()
    cpu, redis_cpu = time.process_time(), server.cpu_seconds()
    while time.perf_counter() - started < seconds:
        await work()
        done += size
    elapsed = time.perf_counter() - started
    cpu, redis_cpu = time.process_time() - cpu, server.cpu_seconds() - redis_cpu
    return done / elapsed, cpu / done * 1e6, redis_cpu / done * 1e6


async def in_turns(
    server: Server, seconds: float, size: int, works: dict[str, Callable[[], Awaitable[object]]]
) -> dict[str, Measured]:
    """Each work's median turn, the works taking turns."""
    turns: dict[str, list[Measured]] = {name: [] for name in works}
    for _ in range(TURNS):
        for name, work in works.items():
            turns[name].append(await timed(server, seconds / TURNS, size, work))
    return {name: sorted(found)[TURNS // 2] for name, found in turns.items()}


def print_table(what: str, measured: dict[str, Measured]) -> None:
    print(f"\n| {what} | a second | client µs | Redis µs |\n|---|---|---|---|")
    for name, (rate, client, server) in measured.items():
        print(f"| {name} | {rate:,.0f} | {client:.1f} | {server:.1f} |")


async def compare_connections(server: Server, seconds: float) -> None:
    """EVALSHA of the read script on what is not there: what the connections cost."""
    settings = Settings(nodes=(f"127.0.0.1:{server.port}",), **SETTINGS)
    own = Connection(
        Address("127.0.0.1", server.port), Dialler(settings, WorkerId("bench")), settings,
        random.random, Refusals(), b"{life}",
    )  # fmt: skip
    await own.connect()
    theirs = redis.asyncio.Redis(port=server.port, single_connection_client=True)
    pooled = redis.asyncio.Redis(port=server.port)
    sha = SHAS["read"]
    arguments = (2, "{a}:entries", "{a}:head", own.identity, 0, 10)

    async def own_pipeline() -> None:
        await own.call([pack((b"EVALSHA", sha, *arguments)) for _ in range(PIPELINE)], 30.0)

    async def redis_py_pipeline() -> None:
        async with theirs.pipeline(transaction=False) as pipeline:
            for _ in range(PIPELINE):
                pipeline.evalsha(sha.decode(), *arguments)
            await pipeline.execute()

    async def own_callers() -> None:
        await asyncio.gather(
            *(own.call([pack((b"EVALSHA", sha, *arguments))], 30.0) for _ in range(PIPELINE))
        )

    async def redis_py_callers() -> None:
        await asyncio.gather(*(pooled.evalsha(sha.decode(), *arguments) for _ in range(PIPELINE)))

    works = {"own connection": own_pipeline, "redis-py asyncio": redis_py_pipeline}
    print_table(f"EVALSHA, pipelines of {PIPELINE}", await in_turns(server, seconds, 64, works))
    works = {"own connection": own_callers, "redis-py asyncio, its pool": redis_py_callers}
    print_table(f"EVALSHA, {PIPELINE} callers at once", await in_turns(server, seconds, 64, works))
    await own.close()
    await theirs.aclose()
    await pooled.aclose()


class Batches:
    """Batches of real writes, made before they are measured."""

    def __init__(self, folder: Path, conversations: int, body_bytes: int) -> None:
        sealer = open_keyring(folder / "keyring.json", create=True)
        self._decide = AppendPlanner(sealer.cipher, sealer.macs, group_members=500).decide
        self._hot = MemoryHotStore(SystemClock())
        self._random = random.Random(7)
        self._ids = [ConversationId(f"conversation-{n}") for n in range(conversations)]
        self._bodies = bodies(body_bytes)
        self._drafted = 0
        self._fresh = [
            FreshKey(
                key := conversation_key(self._random.getrandbits(10), self._random.getrandbits(54)),
                sealer.new_wrapped_key(place_of(key, conversation)),
            )
            for conversation in self._ids
        ]
        self.sealed_bytes = 0

    async def create(self) -> list[list[ConversationWrite]]:
        now = SystemClock().now_ms()
        drafts = [
            Draft(conversation, USERS[0], self._message_id(), Kind.CREATED, now,
                  users=tuple(USERS), fresh=fresh)
            for conversation, fresh in zip(self._ids, self._fresh, strict=True)
        ]  # fmt: skip
        return [
            (await self._hot.append(drafts[start : start + BATCH], self._decide)).writes
            for start in range(0, len(drafts), BATCH)
        ]

    async def next(self, picked: list[int]) -> list[ConversationWrite]:
        now = SystemClock().now_ms()
        drafts = [
            Draft(self._ids[place], self._random.choice(USERS), self._message_id(), Kind.MESSAGE,
                  now, self._random.choice(self._bodies))
            for place in picked
        ]  # fmt: skip
        writes = (await self._hot.append(drafts, self._decide)).writes
        sealed = [entry.sealed for write in writes for entry in write.entries]
        self.sealed_bytes = round(sum(map(len, sealed)) / len(sealed))
        return writes

    def random_batch(self) -> list[int]:
        return self._random.choices(range(len(self._ids)), k=BATCH)

    def _message_id(self):
        self._drafted += 1
        return uuid7(SystemClock().now_ms(), self._drafted << 40)


async def measure_appends(server: Server, folder: Path, seconds: float) -> None:
    """Batches of 256 entries through the tier, in ever the same conversations or in many."""
    print(
        f"\n| appends of {BATCH} entries over | entries/s | client µs | Redis µs "
        "| p50 ms | p99 ms |\n|---|---|---|---|---|---|"
    )
    for conversations in (16, 64, 20_000):
        server.client.flushall()
        batches = Batches(folder, conversations, 256)
        async with open_stores(server) as stores:
            for writes in await batches.create():
                await stores.cached.append(writes)
            ready = [await batches.next(batches.random_batch()) for _ in range(int(seconds * 60))]
            latencies = []
            cpu, redis_cpu = time.process_time(), server.cpu_seconds()
            for writes in ready:
                began = time.perf_counter()
                await stores.cached.append(writes)
                latencies.append(time.perf_counter() - began)
            cpu, redis_cpu = time.process_time() - cpu, server.cpu_seconds() - redis_cpu
        entries = len(ready) * BATCH
        rate = entries / sum(latencies)
        latencies.sort()
        p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
        print(
            f"| {conversations:,} | {rate:,.0f} | {cpu / entries * 1e6:.1f} "
            f"| {redis_cpu / entries * 1e6:.1f} | {p50:.2f} | {p99:.2f} |",
            flush=True,
        )


async def compare_appends(server: Server, folder: Path, seconds: float) -> None:
    """The same append batches over either client, one after the other by turns."""
    server.client.flushall()
    batches = Batches(folder, 64, 256)
    theirs = redis.asyncio.Redis(port=server.port, single_connection_client=True)
    spent = {"own connection": [0.0, 0.0, 0.0], "redis-py asyncio": [0.0, 0.0, 0.0]}
    async with open_stores(server) as stores:
        for writes in await batches.create():
            await stores.cached.append(writes)
        for number in range(int(seconds * 30)):
            name = list(spent)[number % 2]
            calls = [
                stores.cached._append_call(write)
                for draft in batches.random_batch()
                for write in await batches.next([draft])
            ]
            arguments = [unpacked(command) for _, command in calls]
            began, cpu, redis_cpu = (
                time.perf_counter(), time.process_time(), server.cpu_seconds(),
            )  # fmt: skip
            if number % 2:
                async with theirs.pipeline(transaction=False) as pipeline:
                    for command in arguments:
                        pipeline.execute_command(*command)
                    await pipeline.execute()
            else:
                await stores._servers.call(calls, 30.0)
            for place, since in enumerate((began, cpu, redis_cpu)):
                now = (time.perf_counter, time.process_time, server.cpu_seconds)[place]()
                spent[name][place] += (now - since) / BATCH / int(seconds * 15)
    await theirs.aclose()
    print_table(
        f"{BATCH} append calls at once (packed before)",
        {name: (1 / wall, cpu * 1e6, other * 1e6) for name, (wall, cpu, other) in spent.items()},
    )


def unpacked(command: bytes) -> list[bytes]:
    """What a packed command holds: it is a reply's array."""
    reader = hiredis.Reader()
    reader.feed(command)
    return reader.gets()


async def measure_bytes(server: Server, folder: Path) -> None:
    """What a kept entry costs Redis, everything of its conversation included."""
    print(
        "\n| body, B | sealed, B | conversations × entries | kept, B an entry | read of 80, µs |"
        "\n|---|---|---|---|---|"
    )
    for body_bytes, conversations, each in (
        (58, 50, 1_000), (256, 10, 4_000), (256, 500, 80), (256, 4_000, 10), (300, 500, 80),
    ):  # fmt: skip
        server.client.flushall()
        batches = Batches(folder, conversations, body_bytes)
        async with open_stores(server) as stores:
            before = server.bytes_used()
            created = [write for writes in await batches.create() for write in writes]
            places = [place for _ in range(each) for place in range(conversations)]
            for start in range(0, len(places), BATCH):
                await stores.cached.append(await batches.next(places[start : start + BATCH]))
            kept = (server.bytes_used() - before) / len(places)
            keys = [write.conversation.key for write in created[:50]]
            first = max(0, each + 1 - 80)
            began = time.process_time()
            for key in keys * 10:
                await stores.cached.read(key, Seq(first), Seq(each + 1))
            reading = (time.process_time() - began) / len(keys) / 10 * 1e6
        print(
            f"| {body_bytes} | {batches.sealed_bytes} | {conversations:,} × {each:,} "
            f"| {kept:.0f} | {reading:.0f} |",
            flush=True,
        )


def open_stores(server: Server) -> RedisStores:
    settings = Settings(nodes=(f"127.0.0.1:{server.port}",), **SETTINGS)
    return open_redis(settings, WorkerId("bench"), SystemClock(), random.random)


async def run(seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="redis-cached-"))
    server = Server(folder)
    try:
        await compare_connections(server, seconds)
        await compare_appends(server, folder, seconds)
        await measure_appends(server, folder, seconds)
        await measure_bytes(server, folder)
    finally:
        server.process.kill()
        server.process.wait()
        shutil.rmtree(folder)


def main() -> None:
    """Prints tables in Markdown."""
    uvloop.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0))


if __name__ == "__main__":
    main()
