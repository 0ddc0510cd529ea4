"""How a command finds the server and proves who the user is; and what it says while it waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from trunkline.cli.output import write_lines
from trunkline.errors import OutcomeUnknown, TrunklineError
from trunkline.model import UserId

DEFAULT_DATA: Final = "trunkline-data"
_TOKEN_SECONDS: Final = 24 * 3_600

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


class Access(msgspec.Struct, frozen=True):
    """The server's address and a token of the user."""

    url: str
    token: str


def access_options(command: _F) -> _F:
    """Adds --data, --url, --token and --user to a command."""
    for option in (
        click.option("--user", required=True, help="Who you are."),
        click.option("--token", help="A token of the user (made from DIR/tokens.json)."),
        click.option("--url", help="The server (as DIR/server.json says)."),
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            default=DEFAULT_DATA,
            show_default=True,
            metavar="DIR",
            help="Data directory of a server on this machine.",
        ),
    ):
        command = option(command)
    return command


def find_access(data: Path, url: str | None, token: str | None, user: str) -> Access:
    """What was given, and from the data directory what was not.

    Raises `Unreachable` if no server runs on it, `ConfigInvalid` if it has no keys.
    """
    from trunkline.adapters.jwt import TokenKeys, mint
    from trunkline.adapters.node.listening import find_listening

    if url is None:
        url = find_listening(data).url
    if token is None:
        keys = TokenKeys.load(data / "tokens.json")
        now_ms = time.time_ns() // 1_000_000
        token = mint(keys, UserId(user), now_ms=now_ms, ttl_seconds=_TOKEN_SECONDS)
    return Access(url, token)


class Reporting:
    """Takes what the client reports: fatal before the first success, said in a line after it."""

    def __init__(self) -> None:
        self._connected = False
        self._failure: asyncio.Future[None] | None = None

    def __call__(self, error: TrunklineError) -> None:
        """The client's report of an error that it goes on from."""
        if self._connected:
            write_lines([f"trunkline: {error.code}: {error.detail}"], error=True)
        elif (failure := self._failure) is not None and not failure.done():
            failure.set_exception(error)

    async def first(self, work: Awaitable[_T], seconds: float) -> _T:
        """The result of the first thing that needs the server.

        A server that cannot be reached is an error at once, not a reason to try again.
        Raises `OutcomeUnknown` if it takes longer than `seconds`.
        """
        self._failure = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                failing = tasks.create_task(_wait(self._failure))
                result = await work
                failing.cancel()
        except TimeoutError:
            raise OutcomeUnknown(f"The server gave no answer within {seconds:.0f} s.") from None
        self._connected = True
        return result


async def _wait(failure: asyncio.Future[None]) -> None:
    await failure
