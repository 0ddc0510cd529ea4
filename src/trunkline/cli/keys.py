"""`trunkline keys`: which keys protect the messages; rotating them; destroying one's."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trunkline.cli.output import json_option, progress_shown, write_json, write_lines, write_table

if TYPE_CHECKING:
    from trunkline.app.key_changes import Rotated
    from trunkline.config import Config


@click.group()
def keys() -> None:
    """Rotate the keys that protect messages, or destroy a conversation's for good."""


def _place(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whose keys: a data directory, or settings."""
    named = click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings, TOML."
    )
    data = click.argument(
        "data", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False)
    )
    return data(named(json_option(command)))


@keys.command(
    epilog="""\b
Examples:
  trunkline keys status chat
  trunkline keys status --config deploy/cluster.toml --json | jq .conversations
"""
)
@_place
def status(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Say which keys the keyring holds, and how many conversations each of them wraps."""
    from trunkline.app.key_changes import key_status

    found = asyncio.run(key_status(_settings(data, config)))
    if as_json:
        write_json(found)
        return
    rows = [
        ("keys in the keyring", ", ".join(map(str, found.keyring))),
        ("current here", str(found.current)),
        ("current of the deployment", str(found.agreed)),
        *(
            (f"{name}, key {kek}", f"{count:,}")
            for name, counted in found.conversations.items()
            for kek, count in counted.items()
        ),
        ("behind: `keys rewrap` takes them along", f"{found.behind:,}"),
        ("shredded", f"{found.shredded:,}"),
    ]
    write_table("Conversations by key", rows, well=not found.behind)


@keys.command(
    epilog="""\b
Example:
  trunkline keys add --config deploy/cluster.toml
\b
The first step where a cluster has many machines: it adds a key to the keyring here, which
nothing uses yet. Copy the keyring to every machine, then `keys rotate`. A keyring that stands
in the environment is printed: put it there, and start every process anew.
"""
)
@_place
def add(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Add a key to the keyring, to be distributed before `rotate` uses it."""
    from trunkline.app.key_changes import add_key

    done = add_key(_settings(data, config))
    _tell(done, as_json, f"Added key {done.kek}. Copy the keyring to every machine, then rotate.")


@keys.command(
    epilog="""\b
Examples:
  trunkline keys rotate chat
  trunkline keys rotate --config deploy/cluster.toml
\b
Uses the key that `keys add` added, or adds one; finishes a rotation that was cut short. A
cluster goes on meanwhile, with sends and pulls; a data directory must not be served. It may
run twice and from two places at once. Messages are not sealed anew: what is wrapped anew is
each conversation's own key, in the hot tier and in the cold one.
"""
)
@_place
def rotate(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Wrap every conversation's key with the newest key of the keyring."""
    from trunkline.app.key_changes import rotate_keys

    _rewrap(rotate_keys, _settings(data, config), as_json)


@keys.command(
    epilog="""\b
Example:
  trunkline keys rewrap --config deploy/cluster.toml
\b
As `rotate`, but adds no key: it takes what a process that had not heard of the new key has
created since, as `keys status` shows it.
"""
)
@_place
def rewrap(data: Path | None, config: Path | None, as_json: bool) -> None:
    """Wrap with the current key what is not yet wrapped with it."""
    from trunkline.app.key_changes import rewrap_keys

    _rewrap(rewrap_keys, _settings(data, config), as_json)


@keys.command(
    epilog="""\b
Example:
  trunkline keys retire --config deploy/cluster.toml 1
\b
Refused while a conversation is wrapped with the key. Afterwards copy the keyring to every
machine, and destroy the copies of the old one: whatever backups hold under that key is
unreadable from then on.
"""
)
@click.argument("kek", type=click.IntRange(min=1))
@_place
def retire(kek: int, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Take the key with the number KEK, which nothing uses any more, out of the keyring."""
    from trunkline.app.key_changes import retire_key

    done = asyncio.run(retire_key(_settings(data, config), kek))
    _tell(done, as_json, f"Key {done.kek} is retired. Copy the keyring to every machine.")


@keys.command(
    epilog="""\b
Examples:
  trunkline keys shred --config deploy/cluster.toml dm:ann~bob
  trunkline keys shred tea chat --yes
\b
Its key is destroyed in the hot tier and in the cold one: no message of it can be read again,
by anyone, in any tier, and nothing can be sent to it. This cannot be undone. Backups and
binary logs made before hold the wrapped key until they expire, or until `keys rotate` and
`keys retire` have made it worthless.
"""
)
@click.argument("conversation")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_place
def shred(
    conversation: str, yes: bool, data: Path | None, config: Path | None, as_json: bool
) -> None:
    """Make all messages of CONVERSATION (its id) unreadable, for ever."""
    from trunkline.app.key_changes import shred_conversation

    settings = _settings(data, config)
    if not yes:
        click.confirm(f"Destroy the key of {conversation!r} for ever?", abort=True, err=True)
    row = asyncio.run(shred_conversation(settings, conversation))
    if as_json:
        write_json({"conversation": row.id, "entries": row.head})
    else:
        write_lines([f"Shredded: {row.head:,} entries of {row.id!r} cannot be read any more."])


def _rewrap(work: "Callable[..., Awaitable[Rotated]]", settings: "Config", as_json: bool) -> None:
    async def rewrapped(told: Callable[[int], None]) -> "Rotated":
        return await work(settings, told=told)

    with progress_shown(wanted=not as_json) as progress:
        done = asyncio.run(rewrapped(lambda count: progress("conversations", count, count)))
    old = "what is older can be retired"
    _tell(done, as_json, f"{done.rewrapped:,} conversations wrapped with key {done.kek}: {old}.")


def _settings(data: Path | None, config: Path | None) -> "Config":
    from trunkline.cli.logs import configure_logs
    from trunkline.config import load

    if data is None and config is None:
        raise click.UsageError("Name a data directory, or settings with --config.")
    configure_logs("warning")
    return load(config, os.environ, {"data": data and str(data)})


def _tell(done: "Rotated", as_json: bool, sentence: str) -> None:
    if as_json:
        write_json(done)
        return
    write_lines([sentence], error=bool(done.keyring))
    if done.keyring:
        write_lines([done.keyring])
