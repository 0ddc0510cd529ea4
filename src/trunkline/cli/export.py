"""`trunkline export`: one conversation whole, as JSON lines."""

import os
from pathlib import Path

import click

from trunkline.cli.output import write_json


@click.command(
    epilog="""\b
Examples:
  trunkline export chat tea > tea.jsonl
  trunkline export chat dm:ann~bob | jq -r .text
\b
CONVERSATION is a conversation's id, or its name. Each line is an object with seq, sender,
time, kind, and text; entries that are no text (joins, leaves, JSON messages) have content
and content_type in its place. An entry that cannot be read is an error, never left out.
"""
)
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("conversation")
def export(data: Path, conversation: str) -> None:
    """Print CONVERSATION of the data directory DIR, oldest entry first."""
    from trunkline.app.offline import export_conversation
    from trunkline.cli.logs import configure_logs
    from trunkline.config import load

    configure_logs("warning")
    keyring = load(None, os.environ, {}).keyring
    for line in export_conversation(data, conversation, keyring):
        write_json(line)
