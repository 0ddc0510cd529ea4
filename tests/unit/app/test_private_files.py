"""What a node keeps is its user's alone: a folder that was open, and key files, are mended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.adapters.keyring.settings import Settings as KeyringSettings
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite import Settings, open_embedded
from trunkline.app.keys import open_sealer, open_token_keys

EVERYBODY = 0o077


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


async def start(data: Path) -> dict[str, int]:
    """Starts a store as the server does; the modes of what is there meanwhile."""
    open_sealer(data)
    async with open_embedded(data, Settings(materialiser="thread"), SystemClock()):
        open_token_keys(data, create=True)
        return modes_of(data)


def modes_of(data: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (data, *data.iterdir())}


def open_to_all(data: Path) -> None:
    for path in (data, *data.iterdir()):
        path.chmod(0o755)


async def test_a_folder_that_stood_open_is_closed_and_databases_and_keys_are_private(
    tmp_path: Path,
) -> None:
    """I12."""
    data = tmp_path / "data"
    data.mkdir()
    assert data.stat().st_mode & EVERYBODY
    modes = await start(data)
    assert modes.pop("data") == 0o700
    kept = [name for name in modes if ".db" in name] + ["keyring.json", "tokens.json", "lock"]
    assert {"journal.db", "journal.db-wal", "journal.db-shm", "tables.db", "cold.db"} <= set(kept)
    assert {name: modes[name] for name in kept} == dict.fromkeys(kept, 0o600)


async def test_what_an_earlier_version_left_open_is_mended(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await start(data)
    open_to_all(data)
    modes = await start(data)
    assert modes["data"] == 0o700
    for name in ("journal.db", "tables.db", "cold.db", "keyring.json", "tokens.json"):
        assert not modes[name] & EVERYBODY, name


def test_a_keyring_that_stands_elsewhere_is_left_as_it_is(tmp_path: Path) -> None:
    """Others may be meant to read it: that is only said."""
    elsewhere = tmp_path / "keyring.json"
    settings = KeyringSettings(file=str(elsewhere))
    open_sealer(tmp_path / "data", settings)
    elsewhere.chmod(0o640)
    open_sealer(tmp_path / "data", settings)
    assert elsewhere.stat().st_mode & 0o777 == 0o640
