"""The data directory is opened once, by those who know its format, and never half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.adapters.sqlite import Settings, open_embedded
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.errors import DataDamaged, DataDirInvalid, DataDirLocked, DataDirNewer
from trunkline.testing.conformance import SteppedClock

IN_THREAD = Settings(materialiser="thread", lock_wait_seconds=0.0)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


async def make(path: Path) -> None:
    async with open_embedded(path, IN_THREAD, SteppedClock()):
        pass


async def test_opening_twice_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with open_embedded(tmp_path / "data", IN_THREAD, SteppedClock()) as stores:
        with pytest.raises(DataDirLocked):
            await make(tmp_path / "data")
        assert (await stores.tasks.waiting()).conversations == 0


async def test_the_lock_ends_with_whoever_held_it(tmp_path: Path) -> None:
    await make(tmp_path / "data")
    await make(tmp_path / "data")


async def test_a_child_that_inherits_the_lock_holds_it_when_the_parent_is_gone(
    tmp_path: Path,
) -> None:
    directory = DataDirectory.open(tmp_path / "data")
    inherited = os.dup(directory.lock_fd)
    directory.close()
    with pytest.raises(DataDirLocked):
        DataDirectory.open(tmp_path / "data")
    os.close(inherited)
    DataDirectory.open(tmp_path / "data").close()


async def test_a_directory_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    await make(tmp_path / "data")
    (tmp_path / "data" / "format").write_text('{"version": 3, "created": "later"}')
    before = content(tmp_path / "data")
    with pytest.raises(DataDirNewer):
        await make(tmp_path / "data")
    assert content(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["thesis.odt", "journal", ".git"])
async def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataDirInvalid, match=name):
        await make(tmp_path)
    assert content(tmp_path) == {name: b"mine"}


async def test_a_format_that_is_none_and_a_file_in_its_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("[]")
    with pytest.raises(DataDirInvalid):
        await make(tmp_path)
    with pytest.raises(DataDirInvalid):
        await make(tmp_path / "format")


async def test_the_files_of_others_may_be_there_before_the_first_start(tmp_path: Path) -> None:
    for name in ("keyring.json", "sentinel.new", "server.json"):
        (tmp_path / name).write_text("theirs")
    await make(tmp_path)
    assert (tmp_path / "keyring.json").read_text() == "theirs"


async def test_a_first_start_that_was_cut_off_is_completed(tmp_path: Path) -> None:
    await make(tmp_path)
    (tmp_path / "format").rename(tmp_path / "format.new")
    (tmp_path / "cold.db").unlink()
    await make(tmp_path)
    assert {"format", "cold.db"} <= set(content(tmp_path))


@pytest.mark.parametrize("name", ["journal.db", "tables.db", "cold.db"])
async def test_a_missing_file_is_damage_and_not_made_anew(tmp_path: Path, name: str) -> None:
    await make(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataDamaged, match=name):
        await make(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["journal.db", "tables.db", "cold.db"])
async def test_a_file_that_is_no_database_is_damage_by_name(tmp_path: Path, name: str) -> None:
    await make(tmp_path)
    (tmp_path / name).write_bytes(b"\0damage\0" * 2048)
    with pytest.raises(DataDamaged, match=name):
        await make(tmp_path)
