"""`trunkline migrate`: makes and upgrades the tables of a cluster."""

import asyncio
import os
from pathlib import Path

import click

from trunkline.cli.output import json_option, write_json, write_lines


@click.command(
    epilog="""\b
Examples:
  trunkline migrate --config deploy/cluster.toml
  trunkline migrate --config deploy/cluster.toml --after
\b
Run it before the first start and before each upgrade of the workers, which may go on
meanwhile; with --after once all of them are of the new version. Twice, or from two places at
once, is harmless. It never goes backwards: tables of a newer version are refused.
The first run makes the keyring and the token keys in the data directory, unless they are
there: every machine of the cluster needs the same ones.
"""
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Settings, TOML.",
)
@click.option("--after", is_flag=True, help="No worker of an older version runs any more.")
@json_option
def migrate(config: Path, after: bool, as_json: bool) -> None:
    """Make or upgrade the tables in MySQL and HBase, and agree on the keyring."""
    from trunkline.app.cluster import migrate as migrate_tiers
    from trunkline.cli.logs import configure_logs
    from trunkline.config import load

    settings = load(config, os.environ, {})
    configure_logs("warning")
    found = asyncio.run(migrate_tiers(settings, after=after))
    if as_json:
        write_json({place: migrated._asdict() for place, migrated in found})
        return
    for place, (made, waiting) in found:
        lines = [f"{place}: " + (f"made {', '.join(made)}" if made else "up to date")]
        if waiting:
            lines.append(f"{place}: with --after: {', '.join(waiting)}")
        write_lines(lines)
