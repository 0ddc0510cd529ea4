"""The data directory: its format, its lock, its files; refuses what it must not touch."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import msgspec

from trunkline.errors import DataDamaged, DataDirInvalid, DataDirLocked, DataDirNewer

FORMAT_VERSION: Final = 1
_POLL_SECONDS: Final = 0.02
_DATABASES: Final = ("journal.db", "tables.db", "cold.db")
# What may stand in a folder that has no format yet: an opening that was cut off, and the
# files of others that live here too.
_BEFORE_FORMAT: Final = frozenset(
    {
        name + suffix
        for name in ("format", "keyring.json", "sentinel", "tokens.json", "server.json")
        for suffix in ("", ".new")
    }
    | {"lock"}
    | {name + suffix for name in _DATABASES for suffix in ("", "-wal", "-shm")}
)


class Format(msgspec.Struct, frozen=True):
    """The content of the file `format`."""

    version: int
    created: str


class DataDirectory:
    """A locked data directory.

    The lock is held by an open file, so it ends with the process, however that ends; a
    child that inherits `lock_fd` holds it too.
    """

    def __init__(self, path: Path, lock_fd: int, created: str | None) -> None:
        self.path = path
        self.lock_fd = lock_fd
        self.created = created
        self.journal, self.tables, self.cold = (path / name for name in _DATABASES)

    @classmethod
    def open(cls, path: Path, *, lock_wait_seconds: float = 0.0) -> "DataDirectory":
        """Locks the directory, which is made if it does not exist.

        Raises `DataDirInvalid` for a folder of something else, `DataDirNewer` for one of a
        newer version, `DataDirLocked` if another process has it, `DataDamaged` if a file of
        it is gone. In none of these cases anything is changed.
        """
        read_format(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(path, lock_wait_seconds)
        try:
            found = read_format(path)
            directory = cls(path, lock_fd, found.created if found else None)
            if found:
                missing = [name for name in _DATABASES if not (path / name).exists()]
                if missing:
                    raise DataDamaged(f"{', '.join(missing)} is missing in {path}.")
        except BaseException:
            os.close(lock_fd)
            raise
        return directory

    def complete(self, random_bytes: Callable[[int], bytes]) -> None:
        """Writes `format` once the databases were made: from then on they must exist."""
        if self.created is not None:
            return
        self.created = random_bytes(16).hex()
        new = self.path / "format.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(Format(FORMAT_VERSION, self.created)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / "format")
        self.sync()

    def sync(self) -> None:
        """Makes the names of the files durable."""
        for folder in (self.path, self.path.parent):
            fd = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Gives the lock up."""
        os.close(self.lock_fd)


def read_format(path: Path) -> Format | None:
    """The directory's format, or None if it is still to be made."""
    if not path.exists():
        return None
    if not path.is_dir():
        raise DataDirInvalid(f"{path} is not a folder.")
    try:
        found = msgspec.json.decode((path / "format").read_bytes(), type=Format)
    except FileNotFoundError:
        foreign = sorted({entry.name for entry in path.iterdir()} - _BEFORE_FORMAT)
        if foreign:
            raise DataDirInvalid(
                f"{path} holds other files ({foreign[0]}): name an empty folder."
            ) from None
        return None
    except msgspec.DecodeError as error:
        raise DataDirInvalid(f"{path / 'format'} is not a format file: {error}.") from error
    if found.version > FORMAT_VERSION:
        raise DataDirNewer(
            f"{path} has format {found.version}; this version knows up to {FORMAT_VERSION}."
        )
    return found


def _lock(path: Path, wait_seconds: float) -> int:
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                os.close(fd)
                raise DataDirLocked(f"Another process has {path} open: stop it first.") from None
            sleep(_POLL_SECONDS)
        except OSError:
            os.close(fd)
            raise
        else:
            return fd
