"""Walks a `-wal` file by SQLite's file format, to tell damage from a torn end.

Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. A frame counts if its
salts are the header's and its checksum goes on from the frame before. SQLite takes frames
up to the last valid commit and silently drops the rest, so what was damaged in the middle
would take all later commits with it.
"""

import struct
from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Final

import msgspec

_HEADER: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIIIII")
_MAGIC_LITTLE: Final = 0x377F0682
_MAGIC_BIG: Final = 0x377F0683
_MASK: Final = 0xFFFFFFFF
_LANES: Final = 1_024


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
        data = path.read_bytes()
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


def _bad_header(path: Path, data: bytes) -> WalCheck:
    if not any(data[: _HEADER.size]):
        return WalCheck()  # a header that never reached the disk
    return WalCheck(damage=f"{path.name}: the header is damaged.")


def _walk(
    path: Path,
    data: bytes,
    page_bytes: int,
    salts: tuple[int, ...],
    sums: tuple[int, int],
    order: str,
) -> WalCheck:
    step = _FRAME.size + page_bytes
    places = range(_HEADER.size, len(data) - step + 1, step)
    headers = [_FRAME.unpack_from(data, place) for place in places]
    numbers = takewhile(lambda i: headers[i][0] and headers[i][2:4] == salts, range(len(headers)))
    candidates = sum(1 for _ in numbers)
    starts = [sums, *(header[4:6] for header in headers[:candidates])]
    frames = 0
    for first in range(0, candidates, _LANES):
        part = places[first : min(first + _LANES, candidates)]
        found = _frame_sums(data, part, starts[first : first + len(part)], page_bytes, order)
        valid = takewhile(bool, map(eq, found, starts[first + 1 :]))
        frames += sum(1 for _ in valid)
        if frames < first + len(part):
            break
    commits = sum(header[1] != 0 for header in headers[:frames])
    current = [i for i in range(frames, len(headers)) if headers[i][2:4] == salts]
    if not current:
        return WalCheck(frames, commits)
    last = current[-1]
    ends = [i for i in current if headers[i][1]]
    damage = ""
    if last > frames:
        damage = (
            f"{path.name}: frame {frames + 1} is damaged, {len(current)} belong to it or follow."
        )
    return WalCheck(frames, commits, len(current), damage, not ends or ends[0] == last)


def _checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    """SQLite's checksum over 32-bit words; the length is a multiple of 8 bytes."""
    first, second = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second


def _frame_sums(
    data: bytes, places: range, starts: Sequence[tuple[int, int]], page_bytes: int, order: str
) -> list[tuple[int, int]]:
    """The checksums of the frames at `places`, each from what the frame before it says.

    All frames go side by side, a frame to 64 bits of one long integer: word for word this
    is many times faster than frame for frame, and a start after a crash waits for it.
    """
    lanes = len(places)
    mask = int.from_bytes(_MASK.to_bytes(8, "little") * lanes, "little")
    first, second = (
        int.from_bytes(b"".join(start[i].to_bytes(8, "little") for start in starts), "little")
        for i in (0, 1)
    )
    lane = bytearray(8 * lanes)
    significance = (0, 1, 2, 3) if order == "<" else (3, 2, 1, 0)

    def word(offset: int) -> int:
        for byte, significant in enumerate(significance):
            lane[significant::8] = data[places.start + offset + byte : places.stop : places.step]
        return int.from_bytes(lane, "little")

    for offset in (0, *range(_FRAME.size, _FRAME.size + page_bytes, 8)):
        first = (first + word(offset) + second) & mask
        second = (second + word(offset + 4) + first) & mask
    one, other = (
        struct.unpack(f"<{lanes}Q", total.to_bytes(8 * lanes, "little"))
        for total in (first, second)
    )
    return list(zip(one, other, strict=True))
