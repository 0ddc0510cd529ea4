"""`trunkline replay`: a file of chat through real clients, and whether everyone has it all."""

import os
from pathlib import Path
from random import Random

import click

from trunkline.cli.main import FOUND, OK
from trunkline.cli.output import json_option, progress_shown, write_json


@click.command(
    epilog="""\b
Examples:
  trunkline replay chat.jsonl.gz
  trunkline replay chat.jsonl.gz --data chat --limit 2000 --chaos
  trunkline replay chat.jsonl.gz --url ws://127.0.0.1:8480/v1 --data chat --json
  trunkline replay chat.jsonl.gz --config deploy/cluster.toml
\b
FILE holds one JSON object a line (gzip or not), in order of time:
  {"sent_at": "2011-04-17T04:18:00Z", "conversation": "tea", "kind": "group",
   "sender": "ann", "text": "hello"}
  {"sent_at": …, "conversation": "dm:ann~bob", "kind": "single",
   "sender": "ann", "to": "bob", "text": "psst"}
The members of a group are those who wrote in it. Each user is one endpoint.
\b
Every line is sent over a WebSocket under an id made from the line, so a replay that was
stopped and is run again over the same data stores nothing twice. In the end every endpoint
has its copies compared with the server's by digest and with FILE by content. Exit code 1:
something is not complete; it is listed.
"""
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--url", help="A running server, such as ws://127.0.0.1:8480/v1.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Start a server on this directory (a temporary one). With --url: where the keys are.",
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The keys that sign tokens for --url (DIR/tokens.json).",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The server's settings. Where they name a cluster, its running server is driven.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first lines.")
@click.option(
    "--online",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Share of the endpoints that are online meanwhile; the others come afterwards.",
)
@click.option("--chaos", is_flag=True, help="Drop connections, lose, double and delay frames.")
@click.option("--seed", type=int, help="Makes who is online, and the chaos, repeatable.")
@json_option
def replay(
    file: Path,
    url: str | None,
    data: Path | None,
    tokens: Path | None,
    config: Path | None,
    limit: int | None,
    online: float,
    chaos: bool,
    seed: int | None,
    as_json: bool,
) -> int:
    """Drive FILE through real clients and prove that every one of them has it all."""
    from trunkline.cli.running import run_until_stopped
    from trunkline.cli.serve import raise_open_files
    from trunkline.cli.verdict import detail_rows, main_rows, write_verdict
    from trunkline.replay.chatfile import ChatFile, read_chat_file
    from trunkline.replay.driving import drive_own, drive_running
    from trunkline.replay.run import Plan

    if config is not None and url is None and (cluster := _running_cluster(config, data)):
        url, data = cluster
    if url is not None and data is None and tokens is None:
        raise click.UsageError("--url needs --tokens FILE or --data DIR, to sign users' tokens.")
    if url is None and data is not None and not data.exists():
        # From here on there is a directory to audit, whenever this is killed.
        data.mkdir(mode=0o700, parents=True)

    def chat_of() -> ChatFile:
        return read_chat_file(file, limit=limit)

    plan, random = Plan(online=online, chaos=chaos), Random(seed)
    raise_open_files()
    with progress_shown(wanted=not as_json) as progress:
        if url is not None:
            driving = drive_running(
                chat_of(), plan, random, progress, url=url, data=data, tokens=tokens
            )
        else:
            driving = drive_own(chat_of, plan, random, progress, data=data, config=config)
        result = run_until_stopped(driving)
    if as_json:
        write_json(result)
    else:
        write_verdict(f"Replay of {file.name}", result, main_rows(result) + detail_rows(result))
    return OK if result.is_whole else FOUND


def _running_cluster(config: Path, data: Path | None) -> tuple[str, Path] | None:
    """Where a cluster's server listens and its keys are; None for an embedded server.

    Raises `Unreachable` if the cluster's server does not run.
    """
    from trunkline.adapters.node.listening import find_listening
    from trunkline.config import load

    settings = load(config, os.environ, {"data": data and str(data)})
    if settings.tiers == "embedded":
        return None
    found = find_listening(settings.data_path, f"trunkline serve --config {config}")
    return found.url, settings.data_path
