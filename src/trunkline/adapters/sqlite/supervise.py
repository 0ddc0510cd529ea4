"""Keeps a materialiser at hand, in a child process or in the calling thread."""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.materialise import Answer, Materialiser, open_materialiser
from trunkline.adapters.sqlite.settings import Settings
from trunkline.errors import StorageUnavailable, from_code

_SLICE_SECONDS: Final = 300.0
_END_SECONDS: Final = 30.0


class Slicer(Protocol):
    """Moves slices into the tables; blocking, called by one thread at a time."""

    def slice(self, up_to_inclusive: int, step_ms: int) -> int:
        """Moves commits up to this one, and the store's age on by `step_ms`; returns the
        watermark.
        """
        ...

    def close(self) -> None:
        """Ends it; what is in the tables stays."""
        ...


class InThread:
    """Does the work itself, on files that are opened at the first slice."""

    def __init__(self, directory: DataDirectory, settings: Settings) -> None:
        self._open: Callable[[], Materialiser] = lambda: open_materialiser(directory.path, settings)
        self._materialiser: Materialiser | None = None

    def slice(self, up_to_inclusive: int, step_ms: int) -> int:
        """Moves commits up to this one; returns the watermark."""
        if self._materialiser is None:
            self._materialiser = self._open()
        return self._materialiser.slice(up_to_inclusive, step_ms)

    def close(self) -> None:
        """Closes the files."""
        if self._materialiser is not None:
            self._materialiser.close()
            self._materialiser = None


class InProcess:
    """Asks a child process, which is started at the first slice and again if it has died.

    The child inherits the directory's lock: while it writes, nobody else opens it.
    """

    def __init__(self, directory: DataDirectory, settings: Settings) -> None:
        self._directory = directory
        self._settings = msgspec.json.encode(settings).decode()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int | None:
        """The child's process id while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def slice(self, up_to_inclusive: int, step_ms: int) -> int:
        """Moves commits up to this one; returns the watermark.

        Raises `StorageUnavailable` if there is no child now: it could not be started, has
        died, or does not answer in time.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"%d %d\n" % (up_to_inclusive, step_ms))
            process.stdin.flush()
        except OSError as error:
            raise self._lost(process, f"it ended: {error}") from error
        answered = select.poll()  # `select` refuses descriptors of 1,024 and more
        answered.register(process.stdout, select.POLLIN | select.POLLHUP)
        if not answered.poll(_SLICE_SECONDS * 1_000):
            raise self._lost(process, "it does not answer")
        line = process.stdout.readline()
        if not line:
            raise self._lost(process, "it ended")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise from_code(answer.error, answer.detail)
        return answer.watermark

    def close(self) -> None:
        """Ends the child, if it is there, by the end of its standard input."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(_END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        process.stdout.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            try:
                self._process = self._start()
            except OSError as error:  # no descriptors, no memory, too many processes
                raise StorageUnavailable(
                    f"The materialiser's process could not be started: {error.strerror}."
                ) from error
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "trunkline.adapters.sqlite.materialiser",
                str(self._directory.path),
                self._settings,
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._directory.lock_fd,),
            process_group=0,  # a Ctrl-C at the terminal is for the parent
        )

    def _lost(self, process: subprocess.Popen[bytes], how: str) -> StorageUnavailable:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what it did not read is of no use to it any more
        self._process = None
        return StorageUnavailable(f"The materialiser's process was lost: {how}.")


def slicer(directory: DataDirectory, settings: Settings) -> Slicer:
    """The materialiser that the settings ask for."""
    kind = InProcess if settings.materialiser == "process" else InThread
    return kind(directory, settings)
