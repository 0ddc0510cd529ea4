"""The materialiser as a child process: `python -m trunkline.adapters.sqlite.materialiser`.

Arguments: the data directory, the settings as JSON, the parent's process id. Each line on
standard input is a commit id and by how many milliseconds the store got older; the answer to it
is a line of JSON, an `Answer`. It ends with its standard input, and with its parent.
"""

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from trunkline.adapters.sqlite.materialise import Answer, Materialiser, open_materialiser
from trunkline.adapters.sqlite.settings import Settings
from trunkline.errors import TrunklineError

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 5


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _answer(materialiser: Materialiser, line: str) -> Answer:
    try:
        up_to_inclusive, step_ms = map(int, line.split())
        return Answer(materialiser.slice(up_to_inclusive, step_ms))
    except TrunklineError as error:
        return Answer(error=error.code, detail=error.detail)


def main(directory: str, settings: str, parent: str) -> None:
    """Serves slices until standard input ends."""
    _end_with_parent(int(parent))
    os.nice(_NICE)
    gc.disable()  # what a slice makes has no cycles; looking for them costs a tenth of its time
    materialiser = open_materialiser(Path(directory), msgspec.json.decode(settings, type=Settings))
    try:
        for line in sys.stdin:
            sys.stdout.write(msgspec.json.encode(_answer(materialiser, line)).decode() + "\n")
            sys.stdout.flush()
    finally:
        materialiser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
