"""A database whose disk is full: every send is answered within seconds, and none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from mariadb_server import PrivateMariadb, private_mariadb

from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql
from trunkline.errors import OutcomeUnknown, StorageFull
from trunkline.model import Seq
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import check_view, known_seq_of, seq_of

ANSWER_SECONDS = 5.0
ROOM_BYTES = 256 << 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 160 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    left = os.statvfs(folder)
    with (folder / "other").open("wb") as file:
        file.write(bytes(left.f_bavail * left.f_bsize - ROOM_BYTES))


async def send_until_full(stores: MysqlStores, writer: Writer) -> tuple[dict[str, Seq], list[str]]:
    """Sends until `storage_full`: what was acknowledged, and what has an unknown outcome."""
    acked: dict[str, Seq] = {}
    unknown = []
    for number in range(2_000):
        name = f"m{number}"
        asked = monotonic()
        try:
            (outcome,) = await writer.append(stores.hot, writer.message("g", "ann", name))
            acked[name] = seq_of(outcome)
        except OutcomeUnknown:
            unknown.append(name)
        except StorageFull:
            return acked, unknown
        finally:
            assert monotonic() - asked < ANSWER_SECONDS
    raise AssertionError("it never was full")


async def test_a_full_disk_is_told_within_seconds_and_loses_nothing(
    small: Path, writer: Writer
) -> None:
    """I4, I6: the server itself answers nothing, and waits for room."""
    with private_mariadb(small / "db") as server:
        settings = server.whole()
        await migrate_mysql(settings, lambda: b"sentinel")
        async with open_mysql(settings, SteppedClock()) as stores, asyncio.TaskGroup() as group:
            upkeep = group.create_task(stores.upkeep.run())
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            fill(small)
            acked, unknown = await send_until_full(stores, writer)
            assert unknown
            began = monotonic()
            with pytest.raises(StorageFull):
                await writer.append(stores.hot, writer.message("g", "ann", "refused"))
            assert monotonic() - began < 0.5  # others' answers wait for nothing
            (small / "other").unlink()
            restart(server)
            for name in (*unknown, "refused"):
                acked[name] = await sent_again(stores, writer, name)
            entries = await check_view(writer, stores.hot, "ann", "g")
            assert sorted(acked.values()) == [entry.seq for entry in entries[1:]]
            (outcome,) = await writer.append(stores.hot, writer.message("g", "ann", unknown[0]))
            assert known_seq_of(outcome) == acked[unknown[0]]
            upkeep.cancel()


def restart(server: PrivateMariadb) -> None:
    """MariaDB would look for room again within a minute."""
    server.end(signal.SIGKILL)
    server.start()


async def sent_again(stores: MysqlStores, writer: Writer, name: str) -> Seq:
    """Resends until it is acknowledged; the seq."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            with suppress(StorageFull):
                (outcome,) = await writer.append(stores.hot, writer.message("g", "ann", name))
                return outcome.seq  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
