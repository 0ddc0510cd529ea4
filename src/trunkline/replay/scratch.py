"""Temporary directories of a replay, and those that a killed one left behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "trunkline-replay-"


@contextmanager
def scratch_directory(top: Path | None = None) -> Iterator[Path]:
    """A directory of this process for as long as the context is open.

    Its name holds the process id: what processes that are gone have left, local stores with
    people's messages in the clear, is removed first.
    """
    top = Path(tempfile.gettempdir()) if top is None else top
    for left in top.glob(f"{PREFIX}*-*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=top) as folder:
        yield Path(folder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
