"""Entries of cold segments that were opened lately, so that going back costs one read."""

import sys
from collections.abc import Mapping
from typing import Final

from trunkline.model import Conversation, ConversationKey, Entry, Seq
from trunkline.ports.clock import Clock
from trunkline.services.kept import Kept

RUN_ENTRIES: Final = 128
"""Long ranges are read, kept and encoded in runs that end at multiples of this."""
_ENTRY_BYTES: Final = 300
"""About what an entry takes beside its body."""

_RunKey = tuple[ConversationKey, bytes, int]


class OpenedSegments:
    """Runs of opened entries by conversation, its wrapped key, and position.

    A run is replaced by what the cold tier gives later, whole: an entry that a newer segment
    changed does not stand beside its old neighbours. With another wrapped key, or none, what
    the old one opened is not found any more.
    """

    def __init__(self, clock: Clock, *, most_bytes: int, most_seconds: float) -> None:
        self._runs: Kept[_RunKey, list[Entry]] = Kept(
            clock, most_bytes=most_bytes, most_seconds=most_seconds
        )

    @property
    def size_bytes(self) -> int:
        """About how much memory the entries take."""
        return self._runs.size_bytes

    def forget_old(self) -> None:
        """Drops what is too old."""
        self._runs.forget_old()

    def find(
        self, conversation: Conversation, after: Seq, up_to_inclusive: Seq
    ) -> list[Entry] | None:
        """Exactly after+1..up_to_inclusive, or None where any of it is not here."""
        found: list[Entry] = []
        for number in range(after // RUN_ENTRIES, (up_to_inclusive - 1) // RUN_ENTRIES + 1):
            run = self._runs.get((conversation.key, conversation.wrapped_key, number))
            first = max(after, number * RUN_ENTRIES) + 1
            last = min(up_to_inclusive, (number + 1) * RUN_ENTRIES)
            if run is None or run[0].seq > first or run[-1].seq < last:
                return None
            found += run[first - run[0].seq : last - run[0].seq + 1]
        return found

    def keep(self, conversation: Conversation, entries: Mapping[Seq, Entry]) -> None:
        """Keeps entries by their seqs; a run with a hole in it is not kept."""
        runs: dict[int, list[Entry]] = {}
        for seq in sorted(entries):
            runs.setdefault((seq - 1) // RUN_ENTRIES, []).append(entries[seq])
        for number, run in runs.items():
            if run[-1].seq - run[0].seq + 1 == len(run):
                size = sum(_ENTRY_BYTES + sys.getsizeof(entry.body) for entry in run)
                self._runs.put((conversation.key, conversation.wrapped_key, number), run, size)
