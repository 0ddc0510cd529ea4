"""`trunkline token`: makes a token from the keys of a data directory."""

import time
from pathlib import Path

import click

from trunkline.cli.durations import DURATION
from trunkline.cli.output import json_option, write_json, write_lines
from trunkline.model import UserId


@click.command(
    epilog="""\b
Examples:
  trunkline token chat alice
  trunkline token chat alice --ttl 30d
  trunkline tail --url ws://127.0.0.1:8480/v1 --user alice --token "$(trunkline token chat alice)"
\b
The keys stand in DIR/tokens.json; the first start of `trunkline serve --data DIR` makes it.
In production the application's backend signs tokens itself: a JWT whose `sub` is the user.
"""
)
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("user")
@click.option("--ttl", type=DURATION, default="24h", show_default=True, help="How long it lasts.")
@json_option
def token(data: Path, user: str, ttl: float, as_json: bool) -> None:
    """Print a token that proves to the server that its bearer is USER."""
    from trunkline.adapters.jwt import TokenKeys, mint

    keys = TokenKeys.load(data / "tokens.json")
    now_ms = time.time_ns() // 1_000_000
    minted = mint(keys, UserId(user), now_ms=now_ms, ttl_seconds=ttl)
    if as_json:
        expires = int(now_ms / 1000 + ttl)
        write_json({"token": minted, "user": user, "expires": expires})
    else:
        write_lines([minted])
