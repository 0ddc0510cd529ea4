"""Compares an endpoint's copy of a conversation with the file: no hole, every text, in order.

Every entry of every endpoint is read back from the endpoint's own local store and compared
by its text; nothing is sampled and no copy vouches for another. With the digest, which the
client compares with the server's over the same entries, a copy is complete if both agree.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from trunkline.client import Message
from trunkline.model import Kind, Seq, UserId
from trunkline.replay.chatfile import Script


class Leniency(msgspec.Struct, frozen=True):
    """What a copy may lack or have besides the file.

    `late_view`: the member joined when something was written already (a replay of more
    lines over the same data), so the copy begins later. `written_since`: somebody went on
    writing after the file's end.
    """

    late_view: bool = False
    written_since: bool = False


class Difference(msgspec.Struct):
    """How a copy differs: seqs that are missing, texts that are missing, doubled, or unknown."""

    gaps: int = 0
    missing: int = 0
    doubles: int = 0
    foreign: int = 0
    misplaced: int = 0

    def __bool__(self) -> bool:
        return bool(self.gaps or self.missing or self.doubles or self.foreign or self.misplaced)

    def __str__(self) -> str:
        parts = (
            (self.gaps, "seqs missing"),
            (self.missing, "texts missing"),
            (self.doubles, "texts doubled"),
            (self.foreign, "texts not of the file"),
            (self.misplaced, "senders' texts out of order"),
        )
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def compare(
    script: Script,
    first: Seq,
    head: Seq,
    entries: Sequence[Message],
    leniency: Leniency,
) -> Difference:
    """How the copy `entries`, whose view is first..head, differs from the file's script."""
    difference = Difference()
    held: dict[UserId, list[str]] = {}
    seq: int = first
    for entry in entries:
        if entry.seq != seq:
            difference.gaps += max(1, entry.seq - seq)
            seq = entry.seq
        seq += 1
        if entry.kind is Kind.MESSAGE:
            texts = held.get(entry.sender)
            if texts is None:
                held[entry.sender] = [entry.body]
            else:
                texts.append(entry.body)
    difference.gaps += max(0, head + 1 - seq)
    if held != script.texts:
        # A view from the very start has everything.
        _compare_texts(script, held, leniency, difference, begins_late=first > 1)
    return difference


def _compare_texts(
    script: Script,
    held: dict[UserId, list[str]],
    leniency: Leniency,
    difference: Difference,
    *,
    begins_late: bool,
) -> None:
    for sender in script.texts.keys() | held.keys():
        want, have = script.texts.get(sender, []), held.get(sender, [])
        if have == want:
            continue
        if leniency.written_since and have[: len(want)] == want:
            continue
        if leniency.late_view and begins_late and have == want[len(want) - len(have) :]:
            continue
        missing = Counter(want) - Counter(have)
        beyond = Counter(have) - Counter(want)
        known = set(want)
        doubles = sum(count for text, count in beyond.items() if text in known)
        difference.missing += missing.total()
        difference.doubles += doubles
        difference.foreign += beyond.total() - doubles
        if not missing and not beyond:
            difference.misplaced += 1
