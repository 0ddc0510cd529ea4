"""Walks a `-wal` file by SQLite's file format, to tell damage from a torn end.

Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. A frame counts if its
salts are the header's and its checksum goes on from the frame before. SQLite takes frames
up to the last valid commit and silently drops the rest, so what was damaged in the middle
would take all later commits with it.
"""

import struct
from pathlib import Path
from typing import Final

import msgspec

_HEADER: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIIIII")
_MAGIC_LITTLE: Final = 0x377F0682
_MAGIC_BIG: Final = 0x377F0683
_MASK: Final = 0xFFFFFFFF


class WalCheck(msgspec.Struct, frozen=True):
    """What a WAL holds.

    `frames`: frames that are valid, from the start. `commits`: transactions among them.
    `torn_frames`: frames behind them that belong to this WAL and do not count. `damage`: a
    sentence if these were not just torn. `in_last_transaction`: the damage lies in what was
    written last, as it may after a power cut.
    """

    frames: int = 0
    commits: int = 0
    torn_frames: int = 0
    damage: str = ""
    in_last_transaction: bool = False


def check_wal(path: Path) -> WalCheck:
    """Reads the file and changes nothing; one that does not exist is whole.

    A frame of the current salt with a wrong checksum is damage if more frames of the
    current salt follow; at the very end it is a write that was cut off.
    """
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return WalCheck()
    if len(data) < _HEADER.size:
        return WalCheck()
    magic, _, page_bytes, _, *salts, sum1, sum2 = _HEADER.unpack_from(data)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG):
        return _bad_header(path, data)
    order = "<" if magic == _MAGIC_LITTLE else ">"
    if _checksum(data[:24], (0, 0), order) != (sum1, sum2):
        return _bad_header(path, data)
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        return _bad_header(path, data)
    return _walk(path, data, page_bytes, tuple(salts), (sum1, sum2), order)


def _bad_header(path: Path, data: memoryview) -> WalCheck:
    if not any(data[: _HEADER.size]):
        return WalCheck()  # a header that never reached the disk
    return WalCheck(damage=f"{path.name}: the header is damaged.")


def _walk(
    path: Path,
    data: memoryview,
    page_bytes: int,
    salts: tuple[int, ...],
    sums: tuple[int, int],
    order: str,
) -> WalCheck:
    step = _FRAME.size + page_bytes
    frames = commits = 0
    for place in range(_HEADER.size, len(data) - step + 1, step):
        page, size, salt1, salt2, sum1, sum2 = _FRAME.unpack_from(data, place)
        if (salt1, salt2) != salts:
            break
        head = data[place : place + 8]
        body = data[place + _FRAME.size : place + step]
        sums = _checksum(body, _checksum(head, sums, order), order)
        if not page or sums != (sum1, sum2):
            break
        frames += 1
        commits += size != 0
    rest = [
        _FRAME.unpack_from(data, place)
        for place in range(_HEADER.size + frames * step, len(data) - step + 1, step)
    ]
    current = [index for index, frame in enumerate(rest) if frame[2:4] == salts]
    if not current:
        return WalCheck(frames, commits)
    last = current[-1]
    ends = [index for index in current if rest[index][1]]
    damage = ""
    if last > 0:
        damage = (
            f"{path.name}: frame {frames + 1} is damaged, {len(current)} belong to it or follow."
        )
    return WalCheck(frames, commits, len(current), damage, not ends or ends[0] == last)


def _checksum(data: memoryview, start: tuple[int, int], order: str) -> tuple[int, int]:
    """SQLite's checksum over 32-bit words; the length is a multiple of 8 bytes."""
    first, second = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
