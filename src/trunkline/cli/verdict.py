"""The verdict of a replay as a table, and what is not complete as lines."""

from typing import Final

from trunkline.cli.output import write_lines, write_table
from trunkline.replay.result import Result

_LISTED: Final = 20

Rows = list[tuple[str, str]]


def write_verdict(title: str, result: Result, rows: Rows) -> None:
    """The table on stdout; on stderr what is not complete, the first of it in full."""
    write_table(title, rows, well=result.is_whole)
    lacking = result.incomplete
    lines = [
        f"incomplete: {one.endpoint}"
        + (f", {one.conversation}" if one.conversation is not None else "")
        + f": {one.reason}"
        for one in lacking[:_LISTED]
    ]
    if len(lacking) > _LISTED:
        lines.append(f"… and {len(lacking) - _LISTED:,} more; --json lists them all")
    write_lines(lines, error=True)


def main_rows(result: Result) -> Rows:
    """What matters first."""
    mismatches = result.digest_mismatches
    return [
        ("messages", f"{result.messages:,}"),
        ("acknowledged", f"{result.acked:,}"),
        ("conversations", f"{result.conversations:,}"),
        ("endpoints complete", f"{result.endpoints_complete:,} of {result.endpoints:,}"),
        ("gaps", f"{result.gaps:,}"),
        ("doubles", f"{result.doubles:,}"),
        ("digests equal", "all" if not mismatches else f"all but {mismatches:,}"),
    ]


def detail_rows(result: Result) -> Rows:
    """How it came about."""
    rows = [
        ("local copies compared", f"{result.copies:,}"),
        ("came by push", f"{result.pushed:,}"),
        ("came by pull", f"{result.pulled:,}"),
        ("read from cached, hot, cold", _tiers(result)),
        ("gaps seen and pulled", f"{result.gaps_seen:,}"),
        ("duplicates dropped", f"{result.duplicates_dropped:,}"),
        ("sends resent", f"{result.resent:,}"),
    ]
    if result.already_stored:
        rows.append(("stored by an earlier run", f"{result.already_stored:,}"))
    if result.chaos is not None:
        rows.append(("connections dropped", f"{result.chaos.dropped_connections:,}"))
        rows.append(("sends doubled", f"{result.chaos.doubled_sends:,}"))
        rows.append(("pushes lost", f"{result.chaos.lost_pushes:,}"))
    rows.append(("acknowledged a second", f"{result.acked_per_second:,}"))
    rows.append(("seconds", f"{result.seconds:,.1f}"))
    return rows


def _tiers(result: Result) -> str:
    if result.read_from is None:
        return "?"
    return " ".join(f"{entries:,}" for entries in result.read_from.values())
