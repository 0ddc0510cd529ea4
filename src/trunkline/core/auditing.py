"""Decides what an audit reports: findings by code and invariant, and what was counted."""

from typing import Final

import msgspec

INVARIANTS: Final[dict[str, str]] = {
    "file_damaged": "I4",
    "unreadable": "I4",
    "keyring_missing": "I4",
    "keyring_wrong": "I4",
    "hole": "I1",
    "double": "I1",
    "head_wrong": "I1",
    "hot_range_wrong": "I1",
    "conversation_missing": "I1",
    "conversation_row_wrong": "I1",
    "content_differs": "I2",
    "shard_wrong": "I3",
    "known_id_wrong": "I6",
    "known_id_double": "I6",
    "known_id_missing": "I6",
    "offset_wrong": "I9",
    "marker_wrong": "I9",
    "cold_missing": "I10",
    "cold_metadata_wrong": "I10",
    "seal_broken": "I12",
    "sender_no_member": "I13",
    "members_wrong": "I13",
    "mac_wrong": "I13",
    "list_wrong": "I13",
    "entry_hash_wrong": "I14",
    "digest_wrong": "I14",
    "countable_wrong": "I14",
}
"""Every code of a finding, and the promise (DESIGN section 2) that it says is broken."""

MOST_FINDINGS: Final = 1_000
_MOST_ALIKE: Final = 10

Problem = tuple[str, str]
"""A code of `INVARIANTS`, and a sentence that says what is wrong."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One thing that is wrong. `where` is a file or a conversation's id."""

    code: str
    invariant: str
    where: str
    what: str


class Counted(msgspec.Struct, gc=False):
    """What was checked. `entries`: each once, whether hot, cold or both hold it. `shredded`:
    conversations whose key was destroyed; of these the bodies are not opened, hashes and
    digests are compared all the same.
    """

    entries: int = 0
    conversations: int = 0
    hot_entries: int = 0
    cold_entries: int = 0
    segments: int = 0
    members: int = 0
    known_ids: int = 0
    listings: int = 0
    offsets: int = 0
    sealed_bytes: int = 0
    shredded: int = 0


class AuditReport(msgspec.Struct, frozen=True, gc=False):
    """The outcome: sound if `finding_count` is 0.

    `findings` holds at most `MOST_FINDINGS`, and of one code at most 10 of one place;
    `finding_count` counts them all. `sqlite`: the version of the library that read them, where
    that is SQLite.
    """

    counted: Counted
    findings: tuple[Finding, ...]
    finding_count: int
    seconds: float
    sqlite: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.finding_count == 0

    def as_json(self) -> dict[str, object]:
        """The report as one flat object: counts, `findings`, `finding_count` and so on."""
        return {
            "sound": self.sound,
            **msgspec.structs.asdict(self.counted),
            "findings": [msgspec.structs.asdict(finding) for finding in self.findings],
            "finding_count": self.finding_count,
            "seconds": round(self.seconds, 3),
            "sqlite": self.sqlite,
        }


class Findings:
    """Collects findings within bounds."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0
        self._alike: dict[tuple[str, str], int] = {}

    def add(self, code: str, where: str, what: str) -> None:
        """Adds one; past the bounds it is only counted."""
        self.count += 1
        if len(self.kept) >= MOST_FINDINGS:
            return
        alike = self._alike.get((code, where), 0) + 1
        self._alike[code, where] = alike
        if alike <= _MOST_ALIKE:
            self.kept.append(Finding(code, INVARIANTS[code], where, what))
