"""Where a file stands in its file system: what a copy of it has otherwise.

A rename, a remount and another process leave it as it is; whoever copies or unpacks a file makes
another one. The inode's number alone does not tell: file systems give it out again.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

import msgspec

_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_AT_FDCWD: Final = -100
_NANOSECONDS: Final = 1_000_000_000


class Place(msgspec.Struct, frozen=True):
    """`born_ns`: when the inode was made, nanoseconds since 1970; 0 where nobody knows."""

    inode: int
    born_ns: int = 0

    def is_that_of(self, other: "Place") -> bool:
        """Whether both are the same file, as far as both know."""
        if self.inode != other.inode:
            return False
        return self.born_ns == other.born_ns or not (self.born_ns and other.born_ns)


def place_of(path: Path) -> Place:
    """The place of a file; raises `OSError`."""
    return Place(path.stat().st_ino, _born_ns(path))


def _born_ns(path: Path) -> int:
    """The birth time by statx(2), which Python's `os.stat` does not ask for on Linux."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:
        return int(getattr(path.stat(), "st_birthtime", 0.0) * _NANOSECONDS)
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, found) != 0:
        return 0
    if not ctypes.c_uint32.from_buffer(found, 0).value & _STATX_BTIME:
        return 0
    seconds = ctypes.c_int64.from_buffer(found, 80).value
    return seconds * _NANOSECONDS + ctypes.c_uint32.from_buffer(found, 88).value
