"""`trunkline config`: whether a settings file is right, and what it comes to."""

import os
from pathlib import Path

import click

from trunkline.cli.output import json_option, write_json, write_lines


@click.group()
def config() -> None:
    """Check a settings file."""


@config.command(
    epilog="""\b
Examples:
  trunkline config check deploy/cluster.toml
  trunkline config check deploy/cluster.toml --json | jq .gateway
\b
Unknown keys and values out of bounds are refused, as at a start. With --json every setting is
printed as it counts, the environment taken in; passwords are left out.
"""
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE is right."""
    from trunkline.app.clear_ways import clear_ways
    from trunkline.config import load, shown

    settings = load(file, os.environ, {})
    if as_json:
        write_json(shown(settings))
    else:
        write_lines([f"{file} is right."])
        if settings.tiers == "cluster":
            write_lines([f"Not encrypted: the way to {place}." for place in clear_ways(settings)])
