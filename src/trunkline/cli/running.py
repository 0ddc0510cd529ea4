"""Runs a command's coroutine on uvloop; SIGINT and SIGTERM cancel it, so that it cleans up."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import click
import uvloop

_T = TypeVar("_T")


def run_until_stopped(work: Coroutine[Any, Any, _T]) -> _T:
    """Returns what the coroutine returns; raises `click.Abort` if it was told to stop."""

    quiet_transports()

    async def cancellable() -> _T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        # Also where SIGINT was ignored when the process was made, as in a shell's background.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await work

    try:
        return uvloop.run(cancellable())
    except asyncio.CancelledError:
        raise click.Abort from None


def quiet_transports() -> None:
    """Transports warn of every write to a connection that is gone; clients report it once."""
    for name in ("aiofastnet", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
