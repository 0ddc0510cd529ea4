"""Writes results for whoever reads them: tables on a terminal, plain lines in a pipe, JSON."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
import msgspec


class Progress(Protocol):
    """Told how far a piece of work is."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON for a program.")


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def write_json(value: Any) -> None:
    """One line of JSON, flushed: whoever reads may be waiting for it."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_table(title: str, rows: Sequence[tuple[str, str]], *, well: bool) -> None:
    """A table of names and values; green where all is well, red where not."""
    if on_terminal():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", border_style="green" if well else "red")
        table.add_column("")
        table.add_column("", justify="right")
        for name, value in rows:
            table.add_row(name, Text(value, style="bold"))
        table.show_header = False
        Console().print(table)
        return
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()


def write_lines(lines: Sequence[str], *, error: bool = False) -> None:
    """Plain lines, at once."""
    stream = sys.stderr if error else sys.stdout
    for line in lines:
        print(line, file=stream)
    stream.flush()


@contextmanager
def progress_shown(*, wanted: bool = True) -> Iterator[Progress]:
    """Yields what shows progress: a bar on a terminal (stderr), a line a stage in a pipe."""
    if wanted and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<12}"), BarColumn(),
            MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        with Bars(*columns, console=Console(stderr=True)) as bars:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield show
        return

    ended: set[str] = set()

    def say(stage: str, done: int, total: int) -> None:
        if wanted and done >= total and stage not in ended:
            ended.add(stage)
            write_lines([f"{stage}: {done} of {total}"], error=True)

    yield say
