"""The deterministic simulation: many seeds keep every promise, and one seed is always the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trunkline.testing.simulation import main, run_seed

CHUNKS = 20
FINGERPRINT_SEEDS = "3, 4, 5"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_seed_keeps_every_promise(chunk: int, seeds: int) -> None:
    for seed in range(chunk * seeds // CHUNKS, (chunk + 1) * seeds // CHUNKS):
        outcome = run_seed(seed)
        assert not outcome.broken, f"{outcome.broken}\nreplay: {outcome.replay}"
        assert outcome.entries > 0, f"nothing happened in seed {seed}"


def fingerprints(hash_seed: str) -> str:
    """Runs some seeds in a process of their own, with another order of Python's sets."""
    program = (
        "from trunkline.testing.simulation import run_seed\n"
        f"print([run_seed(seed).fingerprint for seed in ({FINGERPRINT_SEEDS})])"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout


def test_a_seed_run_again_does_the_same_in_any_process() -> None:
    assert fingerprints("1") == fingerprints("2") != ""


def test_a_seed_run_twice_in_one_process_does_the_same() -> None:
    first, second = run_seed(11), run_seed(11)
    assert first == second
    assert first.fingerprint != run_seed(12).fingerprint


def test_the_command_says_how_to_replay_and_how_fast_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "7", "-v"]) == 0
    told = capsys.readouterr().out
    assert "seed 7: " in told
    assert "1 seeds, 0 failed" in told
    assert "seeds/s" in told
