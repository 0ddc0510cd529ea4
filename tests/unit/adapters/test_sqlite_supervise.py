"""The materialiser's process is started, survives nothing it should not, and is replaced."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.adapters.sqlite import Settings
from trunkline.adapters.sqlite.database import connect
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.records import Commit
from trunkline.adapters.sqlite.sql import schema
from trunkline.adapters.sqlite.supervise import InProcess
from trunkline.errors import DataDamaged, DataDirLocked, StorageUnavailable

COMMITS = 6
WAIT_SECONDS = 20.0


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    """A data directory with a few commits in the journal."""
    directory = DataDirectory.open(tmp_path / "data")
    tables = connect(directory.tables)
    tables.execute(schema("tables"))
    tables.close()
    journal = Journal(directory.journal, 1 << 20)
    for journal_id in range(1, COMMITS + 1):
        journal.append(journal_id, Commit(0, 0, ()), 0)
    journal.close()
    yield directory
    directory.close()


def is_gone(process_id: int) -> bool:
    """Whether a process has ended, or is only waiting to be collected."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_gone(process_id: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_gone(process_id):
        assert time.monotonic() < deadline, "the process lives on"
        os.sched_yield()


def test_slices_are_moved_by_a_process_that_ends_when_asked(directory: DataDirectory) -> None:
    child = InProcess(directory, Settings())
    assert child.slice(2, 0) == 2
    process_id = child.process_id
    assert process_id is not None
    assert child.slice(COMMITS, 0) == COMMITS
    assert child.process_id == process_id
    child.close()
    assert is_gone(process_id)


def test_a_process_that_was_killed_is_replaced_at_the_next_slice(directory: DataDirectory) -> None:
    child = InProcess(directory, Settings())
    assert child.slice(1, 0) == 1
    first = child.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(StorageUnavailable):
        child.slice(2, 0)
    assert child.slice(3, 0) == 3
    assert child.process_id != first
    child.close()


def test_its_errors_come_back_as_what_they_are(directory: DataDirectory) -> None:
    child = InProcess(directory, Settings())
    with pytest.raises(DataDamaged, match=r"journal\.db"):
        child.slice(COMMITS + 1, 0)
    assert child.slice(COMMITS, 0) == COMMITS
    child.close()


def test_while_it_lives_nobody_else_opens_the_directory(tmp_path: Path) -> None:
    """Two materialisers would write old values over new ones."""
    directory = DataDirectory.open(tmp_path / "data")
    connect(directory.journal).close()
    child = InProcess(directory, Settings())
    child._started()
    directory.close()
    with pytest.raises(DataDirLocked):
        DataDirectory.open(tmp_path / "data")
    child.close()
    DataDirectory.open(tmp_path / "data").close()


PARENT = """
import sys, time
from pathlib import Path
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.supervise import InProcess
child = InProcess(DataDirectory.open(Path(sys.argv[1])), Settings())
child.slice(1, 0)
print(child.process_id, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_parent_however_that_ends(directory: DataDirectory) -> None:
    path = directory.path
    directory.lock_fd, held = os.open(os.devnull, os.O_RDONLY), directory.lock_fd
    os.close(held)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        process_id = int(parent.stdout.readline())
        assert not is_gone(process_id)
        parent.kill()
        parent.wait()
        wait_until_gone(process_id)
    DataDirectory.open(path, lock_wait_seconds=WAIT_SECONDS).close()


def test_a_process_that_cannot_be_started_is_a_failure_that_is_tried_again(
    directory: DataDirectory,
) -> None:
    child = InProcess(directory, Settings())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (directory.lock_fd + 1, hard))
    try:
        with pytest.raises(StorageUnavailable, match="could not be started"):
            child.slice(2, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert child.slice(2, 0) == 2
    child.close()
