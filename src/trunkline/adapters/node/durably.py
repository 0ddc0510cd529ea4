"""Writes a small file so that it is whole and on disk, or as it was before."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replaces the file; a crash leaves the old content or the new."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
