"""What keeps the embedded store from commits is told at once, and the store mends itself."""

from __future__ import annotations

import asyncio
import resource
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.errors import OutcomeUnknown, StorageFull, StorageUnavailable
from trunkline.model import Seq
from trunkline.services.readiness import Readiness
from trunkline.testing.conformance import Writer
from trunkline.testing.conformance.writer import check_view, known_seq_of, seq_of, view

QUIET = Settings(materialiser="thread", idle_seconds=3_600.0, slice_age_seconds=3_600.0)
AGAIN_SECONDS = 1.0
"""So long after commits are possible again the store is ready."""
SHM_WRITE_LOCK = 120
"""The byte of a write-ahead log's index that a writer locks (SQLite's file format)."""


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


def opened(folder: Path, **changes: object) -> EmbeddedStores:
    return open_embedded(folder, msgspec.structs.replace(QUIET, **changes), SystemClock())


def readiness(stores: EmbeddedStores) -> Readiness:
    return Readiness(stores.health(), serving=lambda: True)


def failures(stores: EmbeddedStores) -> dict[str, str]:
    return {t.tier: t.failure for t in readiness(stores).report().tiers if t.failure}


async def send(writer: Writer, stores: EmbeddedStores, message_id: str, body: str = "hi") -> Seq:
    draft = writer.message("g", "ann", message_id, body)
    return seq_of((await writer.append(stores.hot, draft))[0])


async def until(is_so: Callable[[], bool], seconds: float = AGAIN_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """No file may get longer: a write beyond fails, in a way that is no full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_an_unknown_outcome_refuses_what_follows_and_is_settled_without_a_restart(
    writer: Writer, tmp_path: Path
) -> None:
    """I2, I3: the next seq would depend on what is not known."""
    async with opened(tmp_path / "data") as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        log = tmp_path / "data" / "journal.db-wal"
        with longest_file(log.stat().st_size):
            with pytest.raises(OutcomeUnknown):
                await send(writer, stores, "m")
            assert failures(stores) == {"journal": "outcome_unknown"}
            assert not readiness(stores).report().ready
            with pytest.raises(StorageUnavailable):
                await send(writer, stores, "n")
            assert (await view(stores.hot, "ann", "g"))[0].head == 1
        await until(lambda: readiness(stores).report().ready)
        assert await send(writer, stores, "n") == 2
        assert await send(writer, stores, "o") == 3
        before = await check_view(writer, stores.hot, "ann", "g")
    async with opened(tmp_path / "data") as stores:
        assert await check_view(writer, stores.hot, "ann", "g") == before


async def test_what_was_committed_after_all_is_taken_over_when_it_is_settled(
    writer: Writer, tmp_path: Path
) -> None:
    """I2, I6: its answer was lost; a resend gets the first seq."""
    async with opened(tmp_path / "data") as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        append = stores._journal.append

        def lost(*arguments: object) -> int:
            append(*arguments)  # type: ignore[arg-type]
            raise OSError("the answer is lost")

        stores._journal.append = lost  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await send(writer, stores, "m")
        stores._journal.append = append  # type: ignore[method-assign]
        await until(lambda: readiness(stores).report().ready)
        again = await writer.append(stores.hot, writer.message("g", "ann", "m"))
        assert known_seq_of(again[0]) == 2
        assert await send(writer, stores, "n") == 3
        await check_view(writer, stores.hot, "ann", "g")


async def test_a_lock_of_somebody_else_refuses_retryably_and_no_longer_than_it_is_held(
    writer: Writer, tmp_path: Path
) -> None:
    """A commit that got no lock has changed nothing: that is known."""
    async with opened(tmp_path / "data") as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        program = (
            "import fcntl, sys\n"
            f"file = open({str(tmp_path / 'data' / 'journal.db-shm')!r}, 'rb')\n"
            f"fcntl.lockf(file, fcntl.LOCK_SH, 1, {SHM_WRITE_LOCK})\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageUnavailable):
            await send(writer, stores, "m")
        assert failures(stores) == {"journal": "storage_unavailable"}
        holder.stdin.close()
        await holder.wait()
        await until(lambda: readiness(stores).report().ready, 2 * AGAIN_SECONDS)
        assert await send(writer, stores, "m") == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        if subprocess.run(options, capture_output=True).returncode:
            pytest.skip("mounting a small disk takes root")
    except FileNotFoundError:
        pytest.skip("no mount here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_told_until_there_is_room_though_nobody_sends(
    writer: Writer, small_disk: Path
) -> None:
    """DESIGN section 10: it recovers by itself; nothing acknowledged is lost."""
    async with opened(small_disk / "data") as stores:
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        ballast = small_disk / "ballast"
        ballast.write_bytes(secrets.token_bytes(2 << 20))
        sent = 1
        with suppress(StorageFull):
            while sent < 99:
                sent = await send(writer, stores, f"m{sent:02}", secrets.token_hex(60_000))
        assert failures(stores) == {"journal": "storage_full"}
        assert not readiness(stores).report().ready
        await asyncio.sleep(2 * AGAIN_SECONDS / 3)  # some probes, which must not succeed
        assert failures(stores) == {"journal": "storage_full"}
        ballast.unlink()
        await until(lambda: readiness(stores).report().ready)
        assert await send(writer, stores, "z") == sent + 1
        await check_view(writer, stores.hot, "ann", "g")


async def test_a_materialiser_that_cannot_be_started_is_told_and_ends_nothing(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "data", materialiser="process", idle_seconds=0.02) as stores:
        executable = sys.executable
        monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
        await writer.append(stores.hot, writer.create("g", "ann", "c"))
        await until(lambda: failures(stores) == {"tables": "storage_unavailable"})
        assert readiness(stores).report().ready
        assert await send(writer, stores, "m") == 2
        monkeypatch.setattr(sys, "executable", executable)
        await until(lambda: not failures(stores), 10.0)


async def test_appends_that_get_no_room_make_the_store_not_ready_until_there_is_some(
    writer: Writer, tmp_path: Path
) -> None:
    bounds: dict[str, object] = {"pending_entries": 2, "pending_wait_seconds": 0.0}
    async with opened(tmp_path / "data", **bounds) as stores:
        slicing: Callable[[], Awaitable[None]] = stores._upkeep.materialise
        async with stores._upkeep._slicing:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            await send(writer, stores, "m")
            with pytest.raises(StorageUnavailable):
                await send(writer, stores, "n")
            assert failures(stores) == {"journal": "storage_unavailable"}
        await slicing()
        assert readiness(stores).report().ready
