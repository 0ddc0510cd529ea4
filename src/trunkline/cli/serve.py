"""`trunkline serve`: runs the embedded server, or a cluster's workers, in the foreground."""

import os
import resource
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trunkline.cli.main import OK
from trunkline.cli.output import json_option, on_terminal, write_json, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.adapters.node.listening import Listening
    from trunkline.config import Config


@click.command(
    epilog="""\b
Examples:
  trunkline serve --data chat
  trunkline serve --data chat --host 0.0.0.0 --port 8480
  TRUNKLINE_SERVICES__SENDS_PER_SECOND=50 trunkline serve --data chat
  trunkline serve --config deploy/cluster.toml --workers 2
\b
The first start makes the data directory, its keyring (keyring.json: keep a copy of it
elsewhere, without it nothing can be read) and the keys that sign tokens (tokens.json).
SIGTERM or Ctrl-C drains: what is queued is stored and acknowledged, clients are told to
come back. While it runs, server.json in the data directory says where it listens.
\b
Where the settings say `tiers = "cluster"`, messages live in MySQL, Redis and HBase, whose
tables `trunkline migrate` makes. The workers share one port, any of them serves anybody; one
that ends is started again. An archiver runs beside them, unless it runs elsewhere
(`trunkline archiver`) and --no-archiver says so.
\b
Settings come from the command line, then TRUNKLINE_SECTION__NAME in the environment,
then the file given by --config.
"""
)
@click.option("--data", metavar="DIR", help="Data directory (trunkline-data).")
@click.option("--host", help="Address of the WebSocket listener (127.0.0.1).")
@click.option("--port", type=int, help="Port of the WebSocket listener (8480); 0: any free one.")
@click.option("--ops-port", type=int, help="Port of health and metrics (8481); 0: any free one.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings, TOML.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes of a cluster's server on this machine (1).",
)
@click.option("--no-archiver", is_flag=True, help="A cluster's workers only.")
@click.option("--as-worker", is_flag=True, hidden=True)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@json_option
def serve(
    data: str | None,
    host: str | None,
    port: int | None,
    ops_port: int | None,
    log_level: str | None,
    config: Path | None,
    workers: int | None,
    no_archiver: bool,
    as_worker: bool,
    until_stdin_closes: bool,
    as_json: bool,
) -> int:
    """Run the server: one process and one data directory, or the workers of a cluster."""
    import uvloop

    from trunkline.adapters.node.listening import Listening
    from trunkline.cli.logs import configure_logs
    from trunkline.config import load

    settings = load(
        config,
        os.environ,
        {
            "data": data,
            "gateway.host": host,
            "gateway.port": port,
            "ops.port": ops_port,
            "log_level": log_level,
        },
    )
    configure_logs(settings.log_level)
    raise_open_files()
    if until_stdin_closes:
        stop_at_end_of_stdin()

    def on_listening(listening: Listening) -> None:
        if as_json:
            write_json(listening)
            return
        write_lines(
            [
                f"Listening on {listening.url}",
                f"Health and metrics on {listening.ops_url}",
                *([f"Messages in SQLite {listening.sqlite}"] if listening.sqlite else []),
                *(["Ctrl-C stops it."] if on_terminal() else []),
            ]
        )

    if settings.tiers == "embedded":
        if workers is not None or no_archiver:
            raise click.UsageError('--workers and --no-archiver need `tiers = "cluster"`.')
        from trunkline.app.embedded import serve as serve_embedded

        uvloop.run(serve_embedded(settings, on_listening=on_listening))
        return OK
    if as_worker:
        from trunkline.app.cluster import serve_worker

        uvloop.run(serve_worker(settings, on_listening=write_json))
        return OK
    given = {"--config": config, "--data": data, "--log-level": log_level}
    arguments = [part for name, value in given.items() if value for part in (name, str(value))]
    return _keep_workers(
        settings, arguments, workers or 1, archiver=not no_archiver, on_listening=on_listening
    )


def _keep_workers(
    settings: "Config",
    arguments: list[str],
    workers: int,
    *,
    archiver: bool,
    on_listening: "Callable[[Listening], None]",
) -> int:
    """Runs until told to stop; returns the exit code of a process that could not start."""
    import asyncio

    from trunkline.app.workers import StartFailed, run_workers

    running = run_workers(
        settings, arguments, workers=workers, archiver=archiver, on_listening=on_listening
    )
    try:
        asyncio.run(running)
    except StartFailed as failure:
        return failure.code
    return OK


def raise_open_files() -> int:
    """Raises the limit of open files as far as it goes; returns it. Every socket is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def stop_at_end_of_stdin() -> None:
    """Has this process stop when the one ends that started it."""
    threading.Thread(target=_wait_for_end_of_stdin, daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    """The pipe's other end is the process that started this one: when it ends, so does this."""
    # Not sys.stdin: its lock, held by a waiting thread, aborts the interpreter's end.
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
