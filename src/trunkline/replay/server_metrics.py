"""Reads a running server's metrics, where its operators' listener can be reached."""

import asyncio
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

_FETCH_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5


async def read_metrics(ops_url: str) -> dict[str, float] | None:
    """Every sample by its name and labels as they stand there, or None if nobody answers."""
    try:
        text = await asyncio.to_thread(_fetch, f"{ops_url}/metrics")
    except (OSError, urllib.error.URLError, ValueError):
        return None
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


async def read_sums(ops_urls: Sequence[str]) -> dict[str, float] | None:
    """The samples of a server's processes added up, or None unless all of them answer."""
    sums: defaultdict[str, float] = defaultdict(float)
    for found in await asyncio.gather(*map(read_metrics, ops_urls)):
        if found is None:
            return None
        for name, value in found.items():
            sums[name] += value
    return dict(sums) if ops_urls else None


async def wait_until_archived(ops_urls: Sequence[str], seconds: float) -> bool:
    """Waits until the archiver has copied all there is; returns whether it has."""
    for _ in range(int(seconds / _POLL_SECONDS)):
        # The pause comes first: what was just written is not yet counted as waiting.
        await asyncio.sleep(_POLL_SECONDS)
        metrics = await read_sums(ops_urls)
        if metrics is None:
            return False
        entries = metrics.get("trunkline_entries_total", 0.0)
        archived = metrics.get("trunkline_archived_entries_total", 0.0)
        if metrics.get("trunkline_archive_waiting", 0.0) == 0 and archived >= entries:
            return True
    return False


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
        data: bytes = answer.read()
    return data.decode()
