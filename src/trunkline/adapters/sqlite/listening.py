"""Where the server of a data directory listens: `server.json`, there while it runs."""

from pathlib import Path
from typing import Final

import msgspec

from trunkline.errors import Unreachable

SERVER_FILE: Final = "server.json"


class Listening(msgspec.Struct, frozen=True):
    """Where a running server is found."""

    url: str
    ops_url: str
    pid: int


def find_listening(data: Path) -> Listening:
    """Where the server of a data directory listens; raises `Unreachable` if none says so."""
    try:
        return msgspec.json.decode((data / SERVER_FILE).read_bytes(), type=Listening)
    except (OSError, msgspec.MsgspecError):
        raise Unreachable(
            f"No server runs on {data}: start one with `trunkline serve --data {data}`."
        ) from None
