"""Takes what was written out of the upper tiers, so that reading asks those below.

`evict.py cached SETTINGS`: what is cached of conversations is gone, as after its time to live.
`evict.py hot SETTINGS`: besides, the server's archiver has copied everything and trimmed hot.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from processes import BenchError
from trunkline.adapters.mysql.database import Database
from trunkline.config import Config, load

ARCHIVED_SECONDS = 120.0


def evict_cached(config: Config, suffixes: Sequence[str] = ("entries", "head")) -> None:
    """Deletes keys that end like this: by default entries and heads of all conversations."""
    host, _, port = config.redis.nodes[0].rpartition(":")
    with redis.Redis(host, int(port)) as client:
        for suffix in suffixes:
            for key in client.scan_iter(f"{config.redis.prefix}:*}}:{suffix}", count=1000):
                client.unlink(key)


async def _waiting(config: Config) -> int:
    databases = [Database(config.mysql, place, lambda: 0.5) for place in config.mysql.databases]
    try:
        counts = [await one.query("SELECT COUNT(*) FROM archive_task") for one in databases]
    finally:
        for one in databases:
            await one.close()
    return sum(int(count) for ((count,),) in counts)


def wait_archived(config: Config) -> None:
    """Returns once the server's archiver has nothing to do."""
    end = time.monotonic() + ARCHIVED_SECONDS
    while asyncio.run(_waiting(config)):
        if time.monotonic() > end:
            raise BenchError(f"Not archived within {ARCHIVED_SECONDS:.0f} s.")
        time.sleep(0.2)


def main() -> None:
    """See above."""
    tier, settings = sys.argv[1], Path(sys.argv[2])
    config = load(settings, {}, {})
    if tier == "hot":
        wait_archived(config)
    evict_cached(config)


if __name__ == "__main__":
    main()
