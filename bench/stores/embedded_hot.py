"""Rate and latency of the embedded hot store alone: real planner, real sealing, real disk.

`bench/stores/embedded_hot.py [SECONDS] [FOLDER]`. One appender, as the server's combining
writer is one; conversations with 50 members, rising client message ids, bodies of 300 bytes.
"""

import bisect
import gc
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from texts import bodies

from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.core.appending import Accepted, AppendPlanner
from trunkline.core.ids import conversation_key, uuid7
from trunkline.model import ConversationId, Draft, FreshKey, Kind, UserId, place_of

USERS = [UserId(f"user-{number:04d}") for number in range(50)]
CONVERSATIONS = {"64": 64, "20,000 Zipf": 20_000}
BODIES = bodies(300)
SWITCH_SECONDS = 0.0005


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def picker(name: str, rnd: random.Random) -> Callable[[], ConversationId]:
    """Draws conversations: evenly, or by Zipf's law."""
    count = CONVERSATIONS[name]
    ids = [ConversationId(f"conversation-{number:05d}") for number in range(count)]
    if "Zipf" not in name:
        return lambda: ids[rnd.randrange(count)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
    return lambda: ids[bisect.bisect(weights, rnd.random() * weights[-1])]


async def create(stores: EmbeddedStores, planner: AppendPlanner, sealer, name: str) -> None:
    """Makes the conversations."""
    now = SystemClock().now_ms()
    drafts = [
        Draft(
            (conversation := ConversationId(f"conversation-{number:05d}")), USERS[0],
            uuid7(now, random.getrandbits(74)), Kind.CREATED, now, users=tuple(USERS),
            fresh=FreshKey(
                key := conversation_key(random.getrandbits(10), random.getrandbits(54)),
                sealer.new_wrapped_key(place_of(key, conversation)),
            ),
        )
        for number in range(CONVERSATIONS[name])
    ]  # fmt: skip
    for start in range(0, len(drafts), 256):
        await stores.hot.append(drafts[start : start + 256], planner.decide)
    await stores.materialise()


async def measure(folder: Path, name: str, size: int, seconds: float) -> str:
    """Appends for some seconds and then drains; the line of the table."""
    rnd = random.Random(7)
    sealer = open_keyring(folder / "keyring.json", create=True)
    planner = AppendPlanner(sealer.cipher, sealer.macs, group_members=500)
    latencies: list[float] = []
    entries = 0
    making = 0.0
    async with open_embedded(folder / "data", Settings(), SystemClock()) as stores:
        await create(stores, planner, sealer, name)
        pick = picker(name, rnd)
        start = time.perf_counter()
        cpu = time.process_time()
        while time.perf_counter() - start < seconds:
            made = time.perf_counter()
            now = time.time_ns() // 1_000_000
            drafts = [
                Draft(
                    pick(), USERS[rnd.randrange(50)], uuid7(now, (entries + i) << 40),
                    Kind.MESSAGE, now, BODIES[i & 31],
                )
                for i in range(size)
            ]  # fmt: skip
            began = time.perf_counter()
            making += began - made
            decision = await stores.hot.append(drafts, planner.decide)
            latencies.append(time.perf_counter() - began)
            assert all(isinstance(outcome, Accepted) for outcome in decision.outcomes)
            entries += size
        acked = time.perf_counter() - start - making
        await stores.materialise()
        drained = time.perf_counter() - start - making
        cpu = time.process_time() - cpu - making
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    return (
        f"| {name} | {size} | {entries / acked:,.0f} | {entries / drained:,.0f} "
        f"| {cpu / entries * 1e6:.1f} | {p50:.2f} | {p99:.2f} | {latencies[-1] * 1000:.0f} |"
    )


def main() -> None:
    """Prints a table in Markdown."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    parent = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.gettempdir())
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as the server has it
    print(
        "| conversations | entries a commit | entries/s | till materialised | server µs an entry "
        "| p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|---|---|---|"
    )
    for name in CONVERSATIONS:
        for size in (64, 256):
            folder = parent / f"embedded-hot-{os.getpid()}"
            folder.mkdir()
            try:
                print(uvloop.run(measure(folder, name, size, seconds)), flush=True)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
