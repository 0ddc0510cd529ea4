"""`trunkline migrate-data`: moves an embedded data directory into a cluster."""

import asyncio
import os
from pathlib import Path

import click

from trunkline.cli.main import FOUND, OK
from trunkline.cli.output import json_option, progress_shown, write_json, write_lines, write_table


@click.command(
    epilog="""\b
Examples:
  trunkline migrate-data chat --config cluster.toml
  trunkline migrate-data chat --config cluster.toml --resume --json
\b
Stop the server of DIR first, and run no worker or archiver on the cluster before it is done.
Everything moves: conversations with their ids and keys, members, lists, read offsets, messages,
client message ids (remembered for the whole time anew), segments; the keyring and the token
keys, unless the node has them. Users keep their tokens, endpoints pull only what is new.
Then both sides are compared, record by record. DIR stays as it is: keep it as a backup, and
serve it no more.
\b
Exit code 0: all is there. 1: moved, but something differs; each line says what. 3: refused,
nothing was changed; `target_not_empty` after a run that was cut off: add --resume.
"""
)
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Settings of the cluster, TOML.",
)
@click.option("--resume", is_flag=True, help="Go on with a move that was cut off.")
@json_option
def migrate_data(data: Path, config: Path, resume: bool, as_json: bool) -> int:
    """Move the data directory DIR into the cluster of --config."""
    from trunkline.app.moving import move_directory
    from trunkline.cli.logs import configure_logs
    from trunkline.config import load

    settings = load(config, os.environ, {})
    configure_logs("warning")
    with progress_shown() as show:
        report = asyncio.run(move_directory(data, settings, resume=resume, on_progress=show))
    well = not report.mismatches
    if as_json:
        write_json(report)
        return OK if well else FOUND
    rows = [
        ("conversations", f"{report.conversations:,}"),
        ("of these moved before", f"{report.kept:,}"),
        ("entries", f"{report.entries:,}"),
        ("members", f"{report.members:,}"),
        ("segments in the cold tier", f"{report.segments:,}"),
        ("client message ids", f"{report.client_message_ids:,}"),
        ("read offsets", f"{report.offsets:,}"),
        ("mismatches", f"{len(report.mismatches):,}"),
        ("seconds", f"{report.seconds:,.1f}"),
    ]
    write_table(f"{data} in the cluster of {config}", rows, well=well)
    write_lines(report.mismatches)
    return OK if well else FOUND
