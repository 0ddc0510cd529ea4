"""Rate, latency and CPU of the cold tier on HBase, over thriftpy2's two clients side by side.

`bench/stores/hbase_cold.py [SECONDS] [HOST:PORT]`. The store is the same for both; below it
are either the adapter's pool (blocking connections, each on a thread) or thriftpy2's asyncio
client. Segments of 256 entries at 49 sealed bytes each, random, since sealed bytes do not
compress. The table is made and dropped; one that is there is left alone.
"""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from thriftpy2.contrib.aio.protocol import TAsyncBinaryProtocolFactory
from thriftpy2.contrib.aio.rpc import make_client
from thriftpy2.contrib.aio.transport import TAsyncBufferedTransportFactory

from trunkline.adapters.hbase.cold import HbaseColdStore
from trunkline.adapters.hbase.idl import idl
from trunkline.adapters.hbase.layout import table_name
from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table
from trunkline.model import ConversationKey, Digest, Segment, Seq

TABLE = "trunkline_bench_of_the_cold_tier"
CONVERSATIONS = 64
SEGMENTS = 32
ENTRIES = 256
SEALED_BYTES = ENTRIES * 49
AT_ONCE = (1, 8)

Work = Callable[[HbaseColdStore, random.Random], Awaitable[object]]


class AsyncioPool:
    """As many of thriftpy2's asyncio clients as may ask at a time; nothing is tried again."""

    def __init__(self, clients: list[Any]) -> None:
        self._idle: asyncio.Queue[Any] = asyncio.Queue()
        for client in clients:
            self._idle.put_nowait(client)

    async def call(self, name: str, *arguments: object) -> Any:
        client = await self._idle.get()
        answer = await getattr(client, name)(*arguments)
        self._idle.put_nowait(client)
        return answer


@asynccontextmanager
async def threads(settings: Settings):
    """The adapter's own pool."""
    async with connected(settings, random.Random(1)) as pool:
        yield pool


@asynccontextmanager
async def coroutines(settings: Settings):
    """thriftpy2's asyncio client."""
    clients = [
        await make_client(
            idl.THBaseService, settings.host, settings.port,
            trans_factory=TAsyncBufferedTransportFactory(),
            proto_factory=TAsyncBinaryProtocolFactory(), timeout=30_000,
        )
        for _ in range(settings.connections)
    ]  # fmt: skip
    try:
        yield AsyncioPool(clients)
    finally:
        for client in clients:
            client.close()


CLIENTS = {"threads": threads, "asyncio": coroutines}


def segment(key: int, number: int, rnd: random.Random) -> Segment:
    """The segment of that number, counted from 0."""
    first = number * ENTRIES + 1
    sealed = rnd.randbytes(SEALED_BYTES)
    return Segment(
        ConversationKey(key), Seq(first), Seq(first + ENTRIES - 1), Digest(rnd.getrandbits(128)),
        sealed,
    )  # fmt: skip


def some_key(rnd: random.Random) -> ConversationKey:
    """One of the conversations that were filled."""
    return ConversationKey(rnd.randrange(CONVERSATIONS))


def puts(count: int) -> Work:
    """Puts segments of conversations that nobody reads."""

    async def put(store: HbaseColdStore, rnd: random.Random) -> None:
        keys = [rnd.getrandbits(63) + CONVERSATIONS for _ in range(count)]
        await store.put([segment(key, 0, rnd) for key in keys], [])

    return put


def reads(entries: int, touched: int) -> Work:
    """Reads the newest entries of a conversation."""

    async def read(store: HbaseColdStore, rnd: random.Random) -> None:
        head = SEGMENTS * ENTRIES
        found = await store.read(some_key(rnd), Seq(head - entries), Seq(head))
        assert len(found) == touched, len(found)

    return read


async def all_keys(store: HbaseColdStore, rnd: random.Random) -> None:
    """Lists every conversation that was filled, and more."""
    found = store.keys()
    assert len([key async for key in found]) >= CONVERSATIONS


WORK: dict[str, Work] = {
    "read newest 80": reads(80, 1),
    "read 1,000": reads(1_000, 4),
    "put 1 segment": puts(1),
    "put 16 segments": puts(16),
    "all keys": all_keys,
}


async def measure(store: HbaseColdStore, work: Work, at_once: int, seconds: float) -> str:
    """Does the work over and over for some seconds; cells of the table."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    longest_turn = 0.0

    async def repeat(seed: int) -> None:
        rnd = random.Random(seed)
        while time.perf_counter() < end:
            began = time.perf_counter()
            await work(store, rnd)
            latencies.append(time.perf_counter() - began)

    async def watch() -> None:
        nonlocal longest_turn
        while time.perf_counter() < end:
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest_turn = max(longest_turn, time.perf_counter() - began)
            await asyncio.sleep(0.005)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(watch(), *(repeat(time.time_ns() + seed) for seed in range(at_once)))
    cpu = time.process_time() - cpu
    elapsed = time.perf_counter() - began
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    return (
        f"{len(latencies) / elapsed:,.0f} | {cpu / len(latencies) * 1e6:,.0f} "
        f"| {p50:.2f} | {p99:.2f} | {longest_turn * 1000:.1f} |"
    )


async def drop(settings: Settings) -> None:
    """Drops the table."""
    async with connected(settings, random.Random(1)) as pool:
        await pool.call("disableTable", table_name(settings.table), seconds=60.0)
        await pool.call("deleteTable", table_name(settings.table), seconds=60.0)


async def run(settings: Settings, seconds: float) -> None:
    """Fills the table, then measures every kind of work, one client after the other."""
    rnd = random.Random(1)
    if not await migrate_hbase(settings):
        raise SystemExit(f"HBase has a table {TABLE}, and this drops only what it made: drop it.")
    try:
        async with connected(settings, rnd) as pool:
            store = HbaseColdStore(Table(pool, settings.table))
            for key in range(CONVERSATIONS):
                await store.put([segment(key, number, rnd) for number in range(SEGMENTS)], [])
        for name, work in WORK.items():
            for at_once in AT_ONCE if work is not all_keys else (1,):
                for client, opened in CLIENTS.items():
                    async with opened(settings) as pool:
                        store = HbaseColdStore(Table(pool, settings.table))
                        await work(store, rnd)
                        cells = await measure(store, work, at_once, seconds)
                    print(f"| {name} | {at_once} | {client} | {cells}", flush=True)
    finally:
        await drop(settings)


def main() -> None:
    """Prints a table in Markdown."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    host, _, port = (sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:26092").rpartition(":")
    settings = Settings(host=host, port=int(port), table=TABLE, regions=4)
    print(
        "| work | at once | client | a second | client µs | p50 ms | p99 ms | longest turn ms |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    uvloop.run(run(settings, seconds))


if __name__ == "__main__":
    main()
