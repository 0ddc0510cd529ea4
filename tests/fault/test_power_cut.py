"""The power goes while writers write: what was acknowledged is there (I4, I5).

kill -9 shows no missing sync: the kernel still writes what a dead process left it. Here the
data directory stands on an ext4 of its own, which is shut down as if the power went: what
was not synced is gone. It needs root, a loop device and mkfs.ext4.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from under_load import UnderLoad

from trunkline.replay.server_process import ServerProcess

DISK_BYTES = 1 << 30
UNMOUNT_SECONDS = 10.0
_EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
_NO_LOG_FLUSH = 2


class PowerlessDisk:
    """An ext4 in a file, whose power can be cut."""

    def __init__(self, image: Path, mounted: Path) -> None:
        self._image = image
        self.path = mounted
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        mounted.mkdir()
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        self._mount()

    def cut(self) -> None:
        """From now on nothing is written any more, also not what the kernel still holds."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def restore(self) -> None:
        """The power is back: the file system is mounted anew, its own journal replayed."""
        self.unmount()
        self._mount()

    def unmount(self) -> None:
        end = time.monotonic() + UNMOUNT_SECONDS
        while subprocess.run(["umount", str(self.path)], stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < end, "something still uses the disk"
            time.sleep(0.02)

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerlessDisk]:
    disk = PowerlessDisk(tmp_path / "disk.img", tmp_path / "disk")
    yield disk
    disk.unmount()


@pytest.mark.timeout(3600)
async def test_what_was_acknowledged_survives_a_power_cut_under_load(
    tmp_path: Path, rounds: int, disk: PowerlessDisk
) -> None:
    """Given writers without pause, when the disk loses what was not synced, then every
    acknowledged message stands at its seq, the audit is clean, and all copies are equal."""

    def cut(server: ServerProcess) -> None:
        disk.cut()
        server.kill()
        disk.restore()

    async with UnderLoad(disk.path / "data", tmp_path, rounds) as load:
        for _ in range(rounds):
            await load.round(cut)
        await load.converge()
    await load.check()
