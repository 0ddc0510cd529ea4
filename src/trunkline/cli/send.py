"""`trunkline send`: one message, stored and acknowledged."""

import secrets
import sys
import time
from pathlib import Path

import click

from trunkline.cli.connecting import Reporting, access_options, find_access
from trunkline.cli.output import json_option, write_json, write_lines
from trunkline.errors import OutcomeUnknown

_ENDPOINT = "trunkline-send"


@click.command(
    epilog="""\b
Examples:
  trunkline send --data chat --user alice --to bob "hello"
  trunkline send --data chat --user alice --conversation tea "who is in?"
  uptime | trunkline send --data chat --user host-7 --to ops -
\b
It returns when the message is on the server's disk, and prints its place in the
conversation. If the answer was lost (outcome_unknown), send it again with the same --id:
it is stored once, however often it is sent.
"""
)
@access_options
@click.option("--to", help="The user to write to; the conversation is made if need be.")
@click.option("--conversation", help="A conversation's id.")
@click.option("--id", "message_id", help="The message's own id, at most 64 bytes (a fresh one).")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True)
@json_option
@click.argument("text")
def send(
    data: Path,
    url: str | None,
    token: str | None,
    user: str,
    to: str | None,
    conversation: str | None,
    message_id: str | None,
    timeout: float,
    as_json: bool,
    text: str,
) -> None:
    """Send TEXT (-: standard input) and wait until it is stored."""
    from trunkline.cli.running import run_until_stopped
    from trunkline.client import Client, SentMessage
    from trunkline.core.ids import uuid7

    if (to is None) == (conversation is None):
        raise click.UsageError("Name either --to USER or --conversation ID.")
    access = find_access(data, url, token, user)
    id = message_id or uuid7(time.time_ns() // 1_000_000, secrets.randbits(74))
    body = sys.stdin.read().rstrip("\n") if text == "-" else text

    async def work() -> SentMessage:
        reporting = Reporting()
        client = Client(
            access.url,
            token=access.token,
            user=user,
            endpoint=_ENDPOINT,
            push=False,
            report=reporting,
        )
        async with client:
            if to is not None:
                sending = client.send_to(to, body, id=id)
            else:
                sending = client.send(conversation or "", body, id=id)
            return await reporting.first(sending, timeout)

    try:
        sent = run_until_stopped(work())
    except OutcomeUnknown as error:
        again = f"{error.detail} To be sure, send it again with --id {id}: it is stored once."
        raise OutcomeUnknown(again) from None
    if as_json:
        write_json(sent)
    else:
        again = " (it was stored before)" if sent.duplicate else ""
        write_lines([f"{sent.conversation} {sent.seq}{again}"])
