"""`trunkline archiver`: copies what the hot tier holds to the cold one, as a process of its own."""

import os
from pathlib import Path

import click

from trunkline.cli.output import json_option, write_json, write_lines

_NICE = 10
"""Workers on the same machine go first."""


@click.command(
    epilog="""\b
Examples:
  trunkline archiver --config deploy/cluster.toml
  trunkline archiver --config deploy/cluster.toml --ops-port 8490
\b
Any number may run, on any machines: each leases conversations from the hot tier. What it
copies it reads back and compares before anything is trimmed. An embedded server has its
archiver inside, and needs none.
"""
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Settings, TOML.",
)
@click.option("--data", metavar="DIR", help="Directory with the keyring.")
@click.option("--ops-port", type=int, help="Port of health and metrics; 0: any free one.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@json_option
def archiver(
    config: Path,
    data: str | None,
    ops_port: int | None,
    log_level: str | None,
    until_stdin_closes: bool,
    as_json: bool,
) -> None:
    """Run an archiver of a cluster: hot tier to cold tier, off the path of every message."""
    import uvloop

    from trunkline.adapters.node.listening import Listening
    from trunkline.app.cluster import archive
    from trunkline.cli.logs import configure_logs
    from trunkline.cli.serve import stop_at_end_of_stdin
    from trunkline.config import load

    settings = load(
        config, os.environ, {"data": data, "ops.port": ops_port, "log_level": log_level}
    )
    configure_logs(settings.log_level)
    if until_stdin_closes:
        stop_at_end_of_stdin()
    os.nice(_NICE)

    def on_listening(listening: Listening) -> None:
        if as_json:
            write_json(listening)
        else:
            write_lines([f"Archiving. Health and metrics on {listening.ops_url}"])

    uvloop.run(archive(settings, on_listening=on_listening))
