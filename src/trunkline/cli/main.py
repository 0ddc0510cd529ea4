"""The `trunkline` command: its commands by name, and what an exit code means."""

import importlib
import os
import sys
from typing import Final

import click

from trunkline import __version__
from trunkline.errors import TrunklineError

OK: Final = 0
FOUND: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
LATER: Final = 4
INTERRUPTED: Final = 130

COMMANDS: Final = {
    "demo": ("trunkline.cli.demo", "See it work: real chat, two power cuts, a verdict."),
    "serve": ("trunkline.cli.serve", "Run the server: embedded, or the workers of a cluster."),
    "send": ("trunkline.cli.send", "Send a message and wait until it is stored."),
    "tail": ("trunkline.cli.tail", "Show a user's messages, and follow new ones."),
    "token": ("trunkline.cli.token", "Make a token that says who a user is."),
    "replay": ("trunkline.cli.replay", "Drive a file of chat through real clients and prove it."),
    "audit": ("trunkline.cli.audit", "Check all that a data directory holds."),
    "migrate": ("trunkline.cli.migrate", "Make or upgrade the tables of a cluster."),
    "migrate-data": ("trunkline.cli.migrate_data", "Move a data directory into a cluster."),
    "archiver": ("trunkline.cli.archiver", "Run an archiver of a cluster."),
    "keys": ("trunkline.cli.keys", "Rotate the keys that protect messages, destroy one's."),
    "config": ("trunkline.cli.config", "Check a settings file."),
    "export": ("trunkline.cli.export", "Print a conversation as JSON lines."),
}
"""Each command with its module, which has it under its own name, `-` as `_`, and what it is for."""

EPILOG: Final = """\b
Try it:
  trunkline demo
\b
Or step by step, in three terminals:
  trunkline serve --data chat
  trunkline tail --data chat --user bob
  trunkline send --data chat --user alice --to bob "hello"
\b
Exit codes, the same for every command:
  0    done, and all is well
  1    done, and something was found: a finding, an endpoint that is not complete
  2    the command line is not right
  3    refused: the error named on stderr does not go away by itself
  4    not now: the same command may work later (no server, busy, disk full)
  130  interrupted
\b
Errors go to stderr as one line: trunkline: CODE: what to do.
"""


class Commands(click.Group):
    """Imports a command when it is asked for, so that every other one starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])


@click.command(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def trunkline() -> None:
    """A durable message backbone for chat: stored first, pushed second, pulled when missed.

    An acknowledged message is on disk, and everyone who should have it can prove that they do.
    """


def main() -> None:
    """Runs a command and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command; returns its exit code, with every error said in one line."""
    try:
        code = trunkline.main(arguments, prog_name="trunkline", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is left must not be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except TrunklineError as error:
        return _say(error)
    except BaseExceptionGroup as group:
        cause = _only(group)
        if cause is None:
            raise
        return _say(cause)


def _say(error: TrunklineError) -> int:
    detail = " ".join(error.detail.split())
    print(f"trunkline: {error.code}: {detail}", file=sys.stderr)
    return LATER if error.retryable else REFUSED


def _only(group: BaseExceptionGroup[BaseException]) -> TrunklineError | None:
    """The first error of ours in a group that holds nothing else."""
    mine, other = group.split(TrunklineError)
    if mine is None or other is not None:
        return None
    first: BaseException = mine
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, TrunklineError) else None


if __name__ == "__main__":
    main()
