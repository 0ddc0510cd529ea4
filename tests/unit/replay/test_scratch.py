"""What a replay keeps in the clear while it runs is gone with it, or with the next one."""

import os
import subprocess
import sys
from pathlib import Path

from trunkline.replay.scratch import PREFIX, scratch_directory


def gone_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_scratch_directory_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as folder:
        (folder / "endpoints.db").write_text("hello")
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_replay_left_goes_and_what_a_running_one_has_stays(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}{gone_process()}-abc"
    running = tmp_path / f"{PREFIX}{os.getppid()}-abc"
    other = tmp_path / f"{PREFIX}notes"
    for folder in (left, running, other):
        folder.mkdir()
        (folder / "endpoints.db").write_text("hello")
    with scratch_directory(tmp_path):
        assert not left.exists()
        assert running.exists()
        assert other.exists()
