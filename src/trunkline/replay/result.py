"""What a replay found out, as figures and as the list of what is not complete."""

import msgspec

from trunkline.replay.chaos import Havoc


class Incomplete(msgspec.Struct, frozen=True):
    """One endpoint whose copy of one conversation (None: as a whole) is not what it must be."""

    endpoint: str
    conversation: str | None
    reason: str


class Result(msgspec.Struct, omit_defaults=False):
    """The figures of a replay.

    Attributes:
        messages: lines of the file. `acked`: those that the server acknowledged;
            `already_stored`: those of them that it knew from an earlier run.
        endpoints: one a user. `endpoints_complete`: those whose every copy is the server's
            by digest and the file's by content. `online`: those that were pushed to
            meanwhile.
        copies: entries of all endpoints that were compared. `pushed` and `pulled`: by which
            way they came.
        read_from: entries that the server read from each of its tiers; None if its metrics
            cannot be reached.
        gaps_seen: gaps that made an endpoint pull. `duplicates_dropped`: entries that came
            to an endpoint more than once. `resent`: sends that were sent again.
        reports: what clients met and went on from, by error code.
        gaps, doubles: seqs and texts missing or doubled in the copies at the end.
        seconds: of all. `sending_seconds`: until the last line was acknowledged.
    """

    messages: int
    conversations: int
    endpoints: int
    acked: int = 0
    already_stored: int = 0
    endpoints_complete: int = 0
    online: int = 0
    copies: int = 0
    pushed: int = 0
    pulled: int = 0
    read_from: dict[str, int] | None = None
    gaps_seen: int = 0
    duplicates_dropped: int = 0
    digest_mismatches: int = 0
    resent: int = 0
    gaps: int = 0
    doubles: int = 0
    seconds: float = 0.0
    sending_seconds: float = 0.0
    acked_per_second: int = 0
    reports: dict[str, int] = {}
    chaos: Havoc | None = None
    incomplete: list[Incomplete] = []

    @property
    def is_whole(self) -> bool:
        """Whether every line was acknowledged and every endpoint is complete."""
        return (
            self.acked == self.messages
            and self.endpoints_complete == self.endpoints
            and not self.digest_mismatches
            and not self.incomplete
        )
