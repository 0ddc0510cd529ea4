"""`trunkline audit`: everything that a data directory or a cluster holds, checked."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trunkline.cli.main import FOUND, OK
from trunkline.cli.output import json_option, write_json, write_lines, write_table

if TYPE_CHECKING:
    from trunkline.core.auditing import AuditReport


@click.command(
    epilog="""\b
Examples:
  trunkline audit chat
  trunkline audit chat --json | jq .findings
  trunkline audit --config deploy/cluster.toml
\b
Checked are the promises I1, I2, I6, I9, I10, I12, I13 and I14: no hole, one content a seq,
no double, offsets within bounds, hot and cold agree, every body opens, digests are right.
The server must not run on DIR meanwhile. What a crash left in its journal is taken over
first, as a start would; nothing else is changed. A cluster is read as of one moment of each
database; what is written meanwhile can look like a fault.
\b
Exit code 0: sound. 1: there are findings; each names its promise, its place and what is
wrong there. 3: the directory is refused as a whole.
"""
)
@click.argument(
    "data", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False)
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings; of a cluster, all its tiers are checked.",
)
@json_option
def audit(data: Path | None, config: Path | None, as_json: bool) -> int:
    """Check all that the data directory DIR, or the cluster of --config, holds."""
    from trunkline.cli.logs import configure_logs

    configure_logs("warning")
    place, report = _audited(data, config)
    if as_json:
        write_json(report.as_json())
        return OK if report.sound else FOUND
    counted = report.counted
    rows = [
        ("entries", f"{counted.entries:,}"),
        ("conversations", f"{counted.conversations:,}"),
        ("of them shredded", f"{counted.shredded:,}"),
        ("members", f"{counted.members:,}"),
        ("segments in the cold tier", f"{counted.segments:,}"),
        ("client message ids", f"{counted.known_ids:,}"),
        ("read offsets", f"{counted.offsets:,}"),
        ("sealed bytes opened", f"{counted.sealed_bytes:,}"),
        ("findings", f"{report.finding_count:,}"),
        ("seconds", f"{report.seconds:,.1f}"),
        *([("SQLite", report.sqlite)] if report.sqlite else []),
    ]
    write_table(f"Audit of {place}", rows, well=report.sound)
    write_lines([f"{f.invariant} {f.code}: {f.where}: {f.what}" for f in report.findings])
    if report.finding_count > len(report.findings):
        write_lines([f"… and {report.finding_count - len(report.findings):,} more"])
    return OK if report.sound else FOUND


def _audited(data: Path | None, config: Path | None) -> "tuple[Path, AuditReport]":
    """What was audited, and the report."""
    from trunkline.config import load

    if data is None and config is None:
        raise click.UsageError("Name a data directory, or settings with --config.")
    settings = load(config, os.environ, {"data": data and str(data)})
    if config is not None and settings.tiers == "cluster":
        from trunkline.app.cluster import audit as audit_cluster

        return config, asyncio.run(audit_cluster(settings))
    from trunkline.app.offline import audit_directory

    return settings.data_path, audit_directory(settings.data_path, settings.keyring)
