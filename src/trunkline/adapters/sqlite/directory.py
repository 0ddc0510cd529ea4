"""The data directory: its format, its lock, its files; refuses what it must not touch."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import msgspec

from trunkline.core.lives import RandomBytes, first_life, next_life
from trunkline.errors import DataDamaged, DataDirInvalid, DataDirLocked, DataDirNewer
from trunkline.model import StoreLife

FORMAT_VERSION: Final = 2
_POLL_SECONDS: Final = 0.02
_DATABASES: Final = ("journal.db", "tables.db", "cold.db")
# What may stand in a folder that has no format yet: an opening that was cut off, and the
# files of others that live here too.
_BEFORE_FORMAT: Final = frozenset(
    {
        name + suffix
        for name in ("format", "keyring.json", "sentinel", "tokens.json", "server.json", "witness")
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
        """Writes `format` once the databases were made, or made to be of this version: from
        then on they must exist, and no older version opens them.
        """
        if self._format is None:
            self._write(first_life(random_bytes, now_ms))
        elif self.is_new:
            self._write(next_life(self._format.life, random_bytes))

    @property
    def is_new(self) -> bool:
        """Whether the directory is not complete, or was made by a version without generations."""
        return self._format is None or not self._format.mark

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
        self.replace("format", lambda _: found)
        self._format = found

    def replace(self, name: str, content: Callable[[Path], msgspec.Struct]) -> None:
        """Makes a small JSON file anew: afterwards it is whole and on disk, or as it was before.

        `content` is told where it stands until it takes the old one's name.
        """
        new = self.path / f"{name}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(content(new)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)
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
