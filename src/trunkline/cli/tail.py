"""`trunkline tail`: what a user sees, as it comes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trunkline.cli.connecting import Reporting, access_options, find_access
from trunkline.cli.output import json_option, on_terminal, write_json, write_lines
from trunkline.errors import NotMember

if TYPE_CHECKING:
    from trunkline.client import Client, ConversationInfo, Message

_ENDPOINT: Final = "trunkline-tail"
_SYNC_SECONDS: Final = 60.0

Show = Callable[["Message"], None]


@click.command(
    epilog="""\b
Examples:
  trunkline tail --data chat --user bob
  trunkline tail --data chat --user bob tea --last 50
  trunkline tail --data chat --user bob alice --once --json
\b
CONVERSATION is a conversation's id, its name, or another user: then it is the single
conversation with them. Without it, everything new is shown. --json writes one object a
line: conversation, name, seq, sender, time, kind, and text or content. Ctrl-C stops it.
"""
)
@access_options
@click.option(
    "--last", type=click.IntRange(min=0), default=10, show_default=True,
    help="So many older messages of CONVERSATION first.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Show what there is and end.")
@json_option
@click.argument("conversation", required=False)
def tail(
    data: Path,
    url: str | None,
    token: str | None,
    user: str,
    last: int,
    once: bool,
    as_json: bool,
    conversation: str | None,
) -> None:
    """Show the messages that USER gets, the newest of CONVERSATION first, then new ones."""
    from trunkline.cli.running import run_until_stopped
    from trunkline.client import AtOnce, Client, OnOpen

    if once and conversation is None:
        raise click.UsageError("--once needs a CONVERSATION.")
    access = find_access(data, url, token, user)

    async def work() -> None:
        reporting = Reporting()
        client = Client(
            access.url,
            token=access.token,
            user=user,
            endpoint=_ENDPOINT,
            policy=AtOnce() if conversation is None else OnOpen(),
            report=reporting,
        )
        async with client:
            await reporting.first(client.wait_synced(), _SYNC_SECONDS)
            show = _shower(client, as_json=as_json)
            if conversation is None:
                async for message in client.entries():
                    show(message)
                return
            info = await client.open(_find(client, conversation).conversation)
            shown = max(info.first - 1, info.head - last)
            for message in await client.history(info.conversation, after=shown):
                show(message)
                shown = message.seq
            if once:
                return
            async for message in client.entries(from_start=True):
                if message.conversation == info.conversation and message.seq > shown:
                    show(message)

    run_until_stopped(work())


def _find(client: "Client", asked: str) -> "ConversationInfo":
    """The conversation of this id, name or peer; raises `NotMember`."""
    from trunkline.core.ids import single_conversation_id
    from trunkline.model import UserId

    known = client.conversations()
    wanted = {asked}
    if asked != client.user:
        wanted.add(single_conversation_id(client.user, UserId(asked)))
    for info in known:
        if info.conversation in wanted or info.name == asked:
            return info
    raise NotMember(
        f"{client.user} is in no conversation {asked!r}, and has none with such a user."
    )


def _shower(client: "Client", *, as_json: bool) -> Show:
    """Returns what writes a message for who reads."""
    names: dict[str, str] = {}

    def name_of(message: "Message") -> str:
        name = names.get(message.conversation)
        if name is None:
            name = client.conversation(message.conversation).name or message.conversation
            names[message.conversation] = name
        return name

    if as_json:
        return lambda message: write_json(_object(message, name_of(message)))
    if on_terminal():
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)

        def show(message: "Message") -> None:
            line = Text()
            line.append(f"{_time(message):%H:%M:%S} ", style="dim")
            line.append(f"{_plain(name_of(message))} ", style="cyan")
            line.append(_plain(message.sender), style="bold")
            line.append(f" {_what(message)}", style="" if _is_text(message) else "italic dim")
            console.print(line, soft_wrap=True)

        return show

    def say(message: "Message") -> None:
        place = f"{_plain(name_of(message))} {message.seq}"
        time = f"{_time(message):%Y-%m-%dT%H:%M:%SZ}"
        write_lines([f"{time} {place} {_plain(message.sender)}: {_what(message)}"])

    return say


def _object(message: "Message", name: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "conversation": message.conversation,
        "name": name,
        "seq": message.seq,
        "sender": message.sender,
        "time": _time(message).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "kind": message.kind,
    }
    if _is_text(message):
        item["text"] = message.body
    else:
        item["content_type"] = message.content_type
        item["content"] = message.body
    return item


def _is_text(message: "Message") -> bool:
    from trunkline.model import TEXT, Kind

    return message.kind is Kind.MESSAGE and message.content_type == TEXT


def _what(message: "Message") -> str:
    return _plain(message.body) if _is_text(message) else f"[{message.kind}] {_plain(message.body)}"


def _time(message: "Message") -> datetime:
    return datetime.fromtimestamp(message.time_ms / 1000, UTC)


def _plain(text: str) -> str:
    """One line without control characters: what others wrote must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
