"""Where the server of a data directory listens: `server.json`, there while it runs."""

from pathlib import Path
from typing import Final

import msgspec

from trunkline.adapters.node.durably import write_durably
from trunkline.errors import Unreachable

SERVER_FILE: Final = "server.json"


class Listening(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a running server is found.

    `processes` are the operators' listeners of its workers and of its archiver, where these
    are processes of their own; `ops_url` is the first of them. `sqlite`: the version of the
    library that keeps the messages, where that is SQLite.
    """

    url: str
    ops_url: str
    pid: int
    processes: tuple[str, ...] = ()
    sqlite: str = ""

    @property
    def ops_urls(self) -> tuple[str, ...]:
        """Where the metrics of all its processes are."""
        return self.processes or (self.ops_url,)


def announce(data: Path, listening: Listening) -> None:
    """Says where the server of a data directory listens."""
    write_durably(data / SERVER_FILE, msgspec.json.encode(listening))


def withdraw(data: Path) -> None:
    """Says that it listens no more."""
    (data / SERVER_FILE).unlink(missing_ok=True)


def find_listening(data: Path, start: str = "") -> Listening:
    """Where the server of a data directory listens; raises `Unreachable` if none says so.

    `start`: the command that starts it, for the error.
    """
    try:
        return msgspec.json.decode((data / SERVER_FILE).read_bytes(), type=Listening)
    except (OSError, msgspec.MsgspecError):
        raise Unreachable(
            f"No server runs on {data}: start one with "
            f"`{start or f'trunkline serve --data {data}'}`."
        ) from None
