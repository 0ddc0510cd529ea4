"""A data directory says which store it is, and keeps saying so."""

from __future__ import annotations

import json
from pathlib import Path

from trunkline.adapters.sqlite import Settings, open_embedded
from trunkline.model import StoreLife
from trunkline.testing.conformance import SteppedClock

IN_THREAD = Settings(materialiser="thread", lock_wait_seconds=0.0)


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
