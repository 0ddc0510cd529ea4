"""Records of a hot and a cold store in plain lists, made by the real planner, open to damage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from random import Random

import msgspec

from trunkline.adapters.keyring import Keyring, KeyringSealer
from trunkline.core import ids, segments
from trunkline.core.appending import Accepted, AppendPlanner, AppendState, move_markers
from trunkline.core.auditing import AuditReport
from trunkline.core.envelope import associated_data_of, opened
from trunkline.errors import DataDamaged
from trunkline.model import (
    ClientMessageId,
    ColdMetadata,
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    FreshKey,
    Kind,
    Member,
    OffsetMove,
    Segment,
    Seq,
    StoredEntry,
    UserId,
    place_of,
)
from trunkline.ports.inspection import KnownId, Listing, StoreFault
from trunkline.services.audit import Audit

NOW_MS = 1_700_000_000_000


class FixedClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic(self) -> float:
        return 0.0


class HeldCold:
    """A `ports.inspection.ColdInspection` over lists."""

    def __init__(self) -> None:
        self.kept: list[Segment] = []
        self.about: dict[ConversationKey, ColdMetadata] = {}
        self.file_faults: list[StoreFault] = []

    async def faults(self) -> Sequence[StoreFault]:
        return self.file_faults

    async def keys(self) -> AsyncIterator[ConversationKey]:
        for key in sorted({segment.key for segment in self.kept} | self.about.keys()):
            yield key

    async def segments(self, key: ConversationKey) -> AsyncIterator[Segment]:
        for segment in sorted(self.kept, key=lambda s: (s.first, s.last)):
            if segment.key == key:
                yield segment

    async def metadata(self, key: ConversationKey) -> ColdMetadata | None:
        return self.about.get(key)


class Held:
    """A `ports.inspection.HotInspection` of one conversation over lists, and its cold part."""

    def __init__(self, conversation: str, *, keyring: Keyring | None = None, seed: int = 1) -> None:
        random = Random(seed)
        self.sealer = KeyringSealer(keyring or a_keyring(), random.randbytes)
        self.planner = AppendPlanner(self.sealer.cipher, self.sealer.macs, group_members=100)
        self.id = ConversationId(conversation)
        self.key = ids.conversation_key(ids.shard_hash(self.id), random.getrandbits(54))
        self.fresh = FreshKey(self.key, self.sealer.new_wrapped_key(place_of(self.key, self.id)))
        self.row: Conversation | None = None
        self.rows: list[StoredEntry] = []
        self.people: dict[UserId, Member] = {}
        self.known: list[KnownId] = []
        self.lines: list[Listing] = []
        self.moves: list[OffsetMove] = []
        self.cold = HeldCold()
        self.breaks_at: int | None = None

    # --- making -------------------------------------------------------------------------

    def append(
        self,
        sender: str,
        kind: Kind,
        *,
        body: str = "",
        users: Sequence[str] = (),
        name: str | None = None,
        client_message_id: str | None = None,
    ) -> None:
        """One draft through the real planner; its writes are taken over."""
        number = client_message_id or f"c{self.row.head if self.row else 0}"
        draft = Draft(
            self.id, UserId(sender), ClientMessageId(number), kind, NOW_MS, body,
            users=tuple(UserId(user) for user in users), name=name, fresh=self.fresh,
        )  # fmt: skip
        rows = {self.id: self.row} if self.row else {}
        decision = self.planner.decide([draft], AppendState(rows, {self.id: self.people}, {}))
        assert isinstance(decision.outcomes[0], Accepted), decision.outcomes
        (write,) = decision.writes
        old = self.row
        self.row = msgspec.structs.replace(
            write.conversation,
            archived_up_to=old.archived_up_to if old else Seq(0),
            trimmed_up_to=old.trimmed_up_to if old else Seq(0),
        )
        self.rows += write.entries
        for user, member in write.members.items():
            if user not in self.people:
                self.lines.append(Listing(user, self.id, len(self.lines) + 1))
            self.people[user] = member
        move_markers(self.people, write.entries)
        self.known += [
            KnownId(e.sender, e.client_message_id, e.seq)
            for e in write.entries
            if e.client_message_id
        ]

    def archive(self, up_to: int, *, trim: int = 0) -> None:
        """Copies entries behind what is archived into segments, then trims."""
        assert self.row is not None
        cipher = self.sealer.cipher(self.row.wrapped_key, self.row.place)
        entries = [
            opened(row, cipher.open(row.sealed, associated_data_of(self.id, row)))
            for row in self.rows
        ]
        start = self.rows[0].seq
        for first, last in segments.plan(self.row.archived_up_to, Seq(up_to)):
            head = self.rows[first - start]
            before = head.countable - (head.kind is Kind.MESSAGE)
            run = entries[first - start : last - start + 1]
            self.cold.kept.append(segments.seal(self.row, run, before, cipher))
        self.cold.about[self.key] = ColdMetadata(self.row, tuple(self.people.values()))
        self.change_row(archived_up_to=Seq(up_to), trimmed_up_to=Seq(trim))
        self.rows = [row for row in self.rows if row.seq > trim]

    def confirm(self, user: str, seq: int) -> None:
        """The read offset of the user's one endpoint."""
        self.moves.append(OffsetMove(self.key, UserId(user), EndpointId("phone"), Seq(seq)))

    # --- damaging -----------------------------------------------------------------------

    def change_row(self, **fields: object) -> None:
        """Other values in the conversation's row."""
        assert self.row is not None
        self.row = msgspec.structs.replace(self.row, **fields)

    def change_entry(self, seq: int, **fields: object) -> None:
        """Other values in an entry's row, which the hot tier holds."""
        for position, row in enumerate(self.rows):
            if row.seq == seq:
                self.rows[position] = msgspec.structs.replace(row, **fields)
                self.rows.sort(key=lambda row: row.seq)
                return
        raise AssertionError(f"{seq} is not hot")

    def entry(self, seq: int) -> StoredEntry:
        """An entry that the hot tier holds."""
        return next(row for row in self.rows if row.seq == seq)

    def drop_entry(self, seq: int) -> None:
        """The row is gone."""
        self.rows = [row for row in self.rows if row.seq != seq]

    def change_member(self, user: str, **fields: object) -> None:
        """Other values in a member's row."""
        member = self.people[UserId(user)]
        self.people[UserId(user)] = msgspec.structs.replace(member, **fields)

    # --- the port -----------------------------------------------------------------------

    async def faults(self) -> Sequence[StoreFault]:
        return ()

    async def keys(self) -> AsyncIterator[ConversationKey]:
        yield self.key

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        return self.row

    async def members(self, key: ConversationKey) -> Sequence[Member]:
        return list(self.people.values())

    async def entries(self, key: ConversationKey) -> AsyncIterator[Sequence[StoredEntry]]:
        for start in range(0, len(self.rows), 7):
            run = self.rows[start : start + 7]
            if self.breaks_at is not None and run[-1].seq >= self.breaks_at:
                raise DataDamaged(f"tables.db is damaged at {self.breaks_at}.")
            yield run

    async def known_ids(self, key: ConversationKey) -> AsyncIterator[Sequence[KnownId]]:
        yield self.known

    async def listings(self, key: ConversationKey) -> Sequence[Listing]:
        return self.lines

    async def offsets(self, key: ConversationKey) -> Sequence[OffsetMove]:
        return self.moves

    # --- asking -------------------------------------------------------------------------

    async def audit(self, sealer: KeyringSealer | None = None) -> AuditReport:
        """The audit's report on this."""
        return await Audit(self, self.cold, sealer or self.sealer, FixedClock()).run()


def a_keyring(seed: int = 7) -> Keyring:
    """A keyring of one key that no file holds."""
    return Keyring("keyring.json", 1, {1: Random(seed).randbytes(32)})


def a_lively_group() -> Held:
    """A group of 30 entries: joins, leaves, a return, renames; 20 archived, 12 trimmed."""
    held = Held("the-room")
    held.append("ann", Kind.CREATED, users=["bob", "cid"], name="Room")
    for number in range(8):
        held.append(("ann", "bob", "cid")[number % 3], Kind.MESSAGE, body=f"first {number}")
    held.append("ann", Kind.LEFT, users=["cid"])  # 10
    held.append("bob", Kind.RENAMED, name="Hall")
    held.append("bob", Kind.JOINED, users=["dan", "cid"])  # 12
    for number in range(10):
        held.append(("dan", "bob", "cid")[number % 3], Kind.MESSAGE, body=f"second {number}")
    held.archive(20, trim=12)
    held.append("dan", Kind.LEFT, users=["dan"])  # 23
    for number in range(7):
        held.append(("ann", "bob", "cid")[number % 3], Kind.MESSAGE, body=f"third {number}")
    held.confirm("ann", 30)
    held.confirm("dan", 23)
    return held
