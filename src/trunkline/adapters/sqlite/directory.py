"""The data directory: its format, its lock, its files; refuses what it must not touch."""

import fcntl
import os
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import msgspec

from trunkline.core.lives import RandomBytes, first_life, next_life
from trunkline.errors import DataDamaged, DataDirInvalid, DataDirLocked, DataDirNewer
from trunkline.model import StoreLife

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
    """The content of the file `format`: whose directory it is.

    `created` is the store's id. Directories of 0.1.0 say no more: such a one has no `mark`.
    """

    version: int
    created: str
    generation: int = 0
    mark: str = ""
    made_ms: int = 0

    @classmethod
    def of(cls, life: StoreLife) -> "Format":
        """The format of a store's directory."""
        return cls(FORMAT_VERSION, life.id, life.generation, life.mark, life.made_ms)

    @property
    def life(self) -> StoreLife:
        """Which store this is, and which life of it."""
        return StoreLife(self.created, self.generation, self.mark, self.made_ms)


class DataDirectory:
    """A locked data directory.

    The lock is held by an open file, so it ends with the process, however that ends; a
    child that inherits `lock_fd` holds it too.
    """

    def __init__(self, path: Path, lock_fd: int, found: Format | None) -> None:
        self.path = path
        self.lock_fd = lock_fd
        self._format = found
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
            directory = cls(path, lock_fd, found)
            if found:
                missing = [name for name in _DATABASES if not (path / name).exists()]
                if missing:
                    raise DataDamaged(f"{', '.join(missing)} is missing in {path}.")
        except BaseException:
            os.close(lock_fd)
            raise
        return directory

    def complete(self, random_bytes: RandomBytes, now_ms: int) -> None:
        """Writes `format` once the databases were made: from then on they must exist."""
        found = self._format
        if found is None:
            self._write(first_life(random_bytes, now_ms))
        elif not found.mark:
            self._write(next_life(found.life, random_bytes))

    @property
    def life(self) -> StoreLife:
        """Which store this is, once the directory is complete."""
        assert self._format is not None
        return self._format.life

    def begin(self, random_bytes: RandomBytes) -> StoreLife:
        """Begins the store's next generation; on disk when it returns."""
        self._write(next_life(self.life, random_bytes))
        return self.life

    def _write(self, life: StoreLife) -> None:
        found = Format.of(life)
        new = self.path / "format.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(found) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / "format")
        self.sync()
        self._format = found

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
