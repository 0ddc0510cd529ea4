"""`trunkline demo`: what the product promises, before your eyes."""

import asyncio
import shlex
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from trunkline.cli.main import FOUND, OK
from trunkline.cli.output import progress_shown, write_lines

if TYPE_CHECKING:
    from trunkline.replay.chatfile import ChatFile
    from trunkline.replay.demonstration import Shown


@click.command(
    epilog="""\b
What it does:
  starts a server on DIR as a process of its own, on this machine only,
  loads 3,000 lines of real chat through real clients, half of them online,
  kills the server (SIGKILL) twice in the middle and starts it again,
  lets everyone come and pull, and compares every copy: the verdict.
Then the server stays up, and you are told what to type to watch and to write.
Ctrl-C stops it. The next start has everything and loads nothing again.
\b
Remove DIR to begin anew.
"""
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default="trunkline-demo",
    show_default=True,
    metavar="DIR",
    help="Data directory of the demo.",
)
def demo(data: Path) -> int:
    """See it work: real chat, two power cuts in the middle, and a verdict."""
    import uvloop

    from trunkline.cli.running import quiet_transports
    from trunkline.cli.serve import raise_open_files

    raise_open_files()
    quiet_transports()
    try:
        return uvloop.run(_Demo(data).run())
    except asyncio.CancelledError:
        write_lines(["Stopped. The next start loads the rest."])
        raise click.Abort from None


class _Demo:
    """The demo from start to Ctrl-C."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._stop = asyncio.Event()
        self._shown = False

    async def run(self) -> int:
        """Loads, proves, prints, waits; returns the exit code."""
        from trunkline.replay.chatfile import read_chat_file
        from trunkline.replay.demonstration import SAMPLE, demonstration

        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop, task)
        chat = read_chat_file(SAMPLE)
        async with AsyncExitStack() as stack:
            with progress_shown() as progress:
                showing = demonstration(self._data, chat, Random(), progress)
                shown = await stack.enter_async_context(showing)
            self._shown = True
            self._write_verdict(shown)
            self._write_what_to_type(chat, shown.listening.url)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(shown.watch())
                await self._stop.wait()
                watching.cancel()
        write_lines([f"Stopped cleanly. Everything is in {self._data}."])
        return OK if shown.result.is_whole else FOUND

    def _told_to_stop(self, task: "asyncio.Task[int]") -> None:
        """The first signal stops; those after it change nothing."""
        if not self._stop.is_set():
            self._stop.set()
            if not self._shown:
                task.cancel()

    def _write_verdict(self, shown: "Shown") -> None:
        from trunkline.cli.verdict import main_rows, write_verdict

        result = shown.result
        rows = main_rows(result)
        if shown.kills:
            rows.append(("power cuts (kill -9)", f"{shown.kills}"))
            rows.append(("sends resent after them", f"{result.resent:,}"))
        else:
            rows.append(("loaded", "by an earlier run"))
        rows.append(("local copies compared", f"{result.copies:,}"))
        rows.append(("seconds", f"{result.seconds:,.1f}"))
        write_verdict("The verdict", result, rows)

    def _write_what_to_type(self, chat: "ChatFile", url: str) -> None:
        from trunkline.model import ConversationKind

        groups = [s for s in chat.scripts.values() if s.kind is ConversationKind.GROUP]
        group = max(groups, key=lambda script: len(script.members))
        reader, writer = sorted(group.texts, key=lambda user: len(group.texts[user]))[-2:]
        command = "trunkline" if shutil.which("trunkline") else sys.argv[0]
        where = shlex.quote(group.name)
        common = f"--data {shlex.quote(str(self._data))} --user"
        write_lines(
            [
                "",
                f"The server goes on at {url}. Watch a conversation in a second terminal:",
                f"  {command} tail {common} {shlex.quote(reader)} {where}",
                "and write to it in a third:",
                f"  {command} send {common} {shlex.quote(writer)} --conversation {where} hello",
                "Ctrl-C stops the server.",
            ]
        )
