"""A data directory says which store it is, and keeps saying so."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.adapters.sqlite import Settings, open_embedded
from trunkline.model import ConversationKey, EndpointId, OffsetMove, Seq, StoreLife, UserId
from trunkline.testing.conformance import SteppedClock

IN_THREAD = Settings(materialiser="thread", lock_wait_seconds=0.0)
KEY = ConversationKey(7)


async def life_of(path: Path) -> StoreLife:
    """Opens the directory and closes it again."""
    async with open_embedded(path, IN_THREAD, SteppedClock()) as stores:
        return stores.identity.life


async def test_a_directory_is_the_same_store_at_every_start(tmp_path: Path) -> None:
    first = await life_of(tmp_path / "data")
    assert (len(first.id), first.generation, len(first.mark)) == (32, 1, 16)
    assert await life_of(tmp_path / "data") == first
    other = await life_of(tmp_path / "other")
    assert other.id != first.id
    assert other.mark != first.mark


async def test_a_directory_of_the_first_version_keeps_its_id(tmp_path: Path) -> None:
    made = await life_of(tmp_path)
    (tmp_path / "format").write_text(json.dumps({"version": 1, "created": made.id}))
    taken_over = await life_of(tmp_path)
    assert (taken_over.id, taken_over.generation, taken_over.made_ms) == (made.id, 1, 0)
    assert await life_of(tmp_path) == taken_over


async def test_a_generation_that_begins_is_another_one_and_lasts(tmp_path: Path) -> None:
    async with open_embedded(tmp_path, IN_THREAD, SteppedClock()) as stores:
        first = stores.identity.life
        second = await stores.identity.begin("a test")
        assert stores.identity.life == second
    assert (second.id, second.generation) == (first.id, first.generation + 1)
    assert second.mark != first.mark
    assert await life_of(tmp_path) == second


# --- what a directory knows of copies and restores ---------------------------------------


async def used(path: Path, *, commits: int = 1) -> StoreLife:
    """Opens the directory, commits something, closes it."""
    async with open_embedded(path, IN_THREAD, SteppedClock()) as stores:
        for number in range(commits):
            seq = Seq(number + 1)
            await stores.hot.record((), [OffsetMove(KEY, UserId("ann"), EndpointId("e"), seq)])
        return stores.identity.life


async def test_a_copy_begins_a_generation_of_its_own_and_the_original_goes_on(
    tmp_path: Path,
) -> None:
    first = await used(tmp_path / "data")
    for copy in ("one", "two"):
        shutil.copytree(tmp_path / "data", tmp_path / copy)
    one, two = [await life_of(tmp_path / copy) for copy in ("one", "two")]
    assert {life.id for life in (first, one, two)} == {first.id}
    assert (one.generation, two.generation) == (2, 2)
    assert len({first.mark, one.mark, two.mark}) == 3
    assert await life_of(tmp_path / "one") == one
    assert await life_of(tmp_path / "data") == first


async def test_a_directory_that_was_restored_begins_a_generation(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    first = await used(data)
    shutil.copytree(data, backup)
    await used(data)
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    assert (await life_of(data)).generation == first.generation + 1


async def test_a_move_of_the_directory_is_no_restore(tmp_path: Path) -> None:
    first = await used(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert await life_of(tmp_path / "elsewhere") == first


@pytest.mark.parametrize("name", ["journal.db", "tables.db", "cold.db", "witness"])
async def test_a_file_from_elsewhere_begins_a_generation(tmp_path: Path, name: str) -> None:
    first = await used(tmp_path)
    shutil.copy(tmp_path / name, tmp_path / "copy")
    (tmp_path / "copy").replace(tmp_path / name)
    assert (await life_of(tmp_path)).generation == first.generation + 1


async def test_older_files_written_over_these_in_place_begin_a_generation(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    first = await used(data)
    shutil.copytree(data, backup)
    await used(data, commits=3)
    for file in backup.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    assert (await life_of(data)).generation == first.generation + 1


async def test_older_databases_beside_the_own_witness_begin_a_generation(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    first = await used(data)
    shutil.copytree(data, backup)
    await used(data, commits=3)
    for name in ("journal.db", "tables.db"):
        (data / name).write_bytes((backup / name).read_bytes())
    assert (await life_of(data)).generation == first.generation + 1


async def test_a_copy_taken_while_the_server_runs_begins_a_generation(tmp_path: Path) -> None:
    async with open_embedded(tmp_path / "data", IN_THREAD, SteppedClock()) as stores:
        await stores.hot.record((), [OffsetMove(KEY, UserId("ann"), EndpointId("e"), Seq(1))])
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        first = stores.identity.life
    copy = await life_of(tmp_path / "copy")
    assert (copy.id, copy.generation) == (first.id, 2)
    assert await life_of(tmp_path / "data") == first


async def test_a_copy_without_its_format_is_a_store_of_its_own_with_all_in_it(
    tmp_path: Path,
) -> None:
    first = await used(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    (tmp_path / "copy" / "format").unlink()
    async with open_embedded(tmp_path / "copy", IN_THREAD, SteppedClock()) as stores:
        assert stores.identity.life.id != first.id
        assert await stores.hot.offsets(UserId("ann"), EndpointId("e")) == {KEY: 1}


def test_a_kill_while_commits_go_on_is_no_restore(tmp_path: Path) -> None:
    program = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sqlite_identity import *

async def main():
    settings = Settings(materialiser="thread", witness_seconds=0.001, slice_entries=4)
    async with open_embedded(Path(sys.argv[1]), settings, SteppedClock()) as stores:
        print(stores.identity.life.mark, flush=True)
        for number in range(1, 100):
            moves = [OffsetMove(KEY, UserId("ann"), EndpointId("e"), Seq(number))]
            await stores.hot.record((), moves)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    marks = set()
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "data"), str(Path(__file__).parent)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        marks.add(done.stdout)
    assert len(marks) == 1


async def test_what_was_committed_since_the_start_is_noted_again_and_again(tmp_path: Path) -> None:
    settings = Settings(materialiser="thread", witness_seconds=0.001)
    async with open_embedded(tmp_path, settings, SteppedClock()) as stores:
        for number in range(1, 4):
            moves = [OffsetMove(KEY, UserId("ann"), EndpointId("e"), Seq(number))]
            await stores.hot.record((), moves)
        async with asyncio.timeout(10):
            while b'"commit":3' not in (tmp_path / "witness").read_bytes():
                await asyncio.sleep(0.001)
