"""The hot store over journal and tables: decides in turn, commits, answers from both."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from trunkline.adapters.sqlite.commits import Answer, Commits
from trunkline.adapters.sqlite.loading import Need, load
from trunkline.adapters.sqlite.overlay import Overlay
from trunkline.adapters.sqlite.records import OffsetSet, Record, Trimmed, Written, member_row
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.state import Slot, State
from trunkline.adapters.sqlite.tables import Tables
from trunkline.core.appending import ConversationWrite, Decision, move_markers
from trunkline.core.rows import conversation_row, member_of
from trunkline.errors import DataDamaged, StorageUnavailable
from trunkline.model import (
    Conversation,
    ConversationId,
    ConversationKey,
    Draft,
    EndpointId,
    MarkerMove,
    Member,
    OffsetMove,
    Seq,
    StoredEntry,
    UserConversation,
    UserId,
)
from trunkline.ports.head_changes import HeadChanges
from trunkline.ports.hot import Decide

_SLOWER_FROM: Final = 0.75
_SLOWEST_SECONDS: Final = 0.05
"""How full of pending entries appends get slower, and by how much a batch at most."""


class _Moves:
    """Markers and offsets that wait for the next commit, and who waits for them."""

    def __init__(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        self.markers = markers
        self.offsets = offsets
        self.answer: Answer = asyncio.get_running_loop().create_future()


class SqliteHotStore:
    """A `ports.hot.HotStore` and `ports.heads.Heads`. Its methods run on one event loop.

    `failure` is a code while appends are refused since nothing moves into the tables.
    """

    def __init__(
        self,
        state: State,
        commits: Commits,
        overlays: tuple[Overlay, Overlay],
        settings: Settings,
    ) -> None:
        """`overlays`: one for what commits need, one for the questions of readers."""
        self._state = state
        self._commits = commits
        self._commit_overlay, self._overlay = overlays
        self._settings = settings
        self._waiting: list[_Moves] = []
        self._room = asyncio.Event()
        self.failure = ""

    @property
    def head_changes(self) -> HeadChanges:
        """Which heads moved last."""
        return self._state.heads

    # --- writing ------------------------------------------------------------------------

    async def append(
        self, batch: Sequence[Draft], decide: Decide, *, wait: bool = True
    ) -> Decision:
        """Appends a batch as one transaction, see the port."""
        await self._keep_within_bound()
        await self._commits.take_turn()
        moves, self._waiting = self._waiting, []
        try:
            need = Need(self._state)
            need.drafts(batch)
            await self._load(need, moves)
            decision = decide(batch, need.append_state(batch))
            version = self._state.version
            written: list[Record] = []
            for write in decision.writes:
                record, version = self._written(write, version)
                written.append(record)
            version = self._move(moves, written, version)
        except BaseException:
            self._waiting[:0] = moves
            self._commits.give_turn_back()
            raise
        own = self._commit(written, version, moves)
        await asyncio.shield(own)
        return decision

    async def record(self, markers: Sequence[MarkerMove], offsets: Sequence[OffsetMove]) -> None:
        """Moves markers and offsets forward; a lower value changes nothing (I9).

        Calls that meet share a commit, also with an append.
        """
        if not markers and not offsets:
            return
        own = _Moves(markers, offsets)
        self._waiting.append(own)
        try:
            await self._commits.take_turn()
        except BaseException:
            self._waiting = [move for move in self._waiting if move is not own]
            raise
        moves, self._waiting = self._waiting, []
        if own not in moves:  # another commit took it along
            self._waiting = moves
            self._commits.give_turn_back()
            await asyncio.shield(own.answer)
            return
        try:
            await self._load(Need(self._state), moves)
            written: list[Record] = []
            version = self._move(moves, written, self._state.version)
        except BaseException:
            self._waiting[:0] = [move for move in moves if move is not own]
            self._commits.give_turn_back()
            raise
        await asyncio.shield(self._commit(written, version, moves))

    async def trim(self, trims: Sequence[tuple[ConversationKey, Seq]]) -> None:
        """Drops entries 1..seq of each conversation; never beyond what is archived (I10)."""
        slots = await self.turn_with([key for key, _ in trims])
        records: list[Record] = []
        for key, up_to_inclusive in trims:
            slot = slots.get(key)
            if slot is None:
                continue
            up_to = min(up_to_inclusive, slot.conversation.archived_up_to)
            if up_to > slot.conversation.trimmed_up_to:
                records.append(Trimmed(key, up_to))
        await self.commit(records)

    async def turn_with(self, keys: Sequence[ConversationKey]) -> dict[ConversationKey, Slot]:
        """Takes the commit turn with those of these conversations that exist in the cache."""
        await self._commits.take_turn()
        try:
            need = Need(self._state)
            for key in keys:
                need.conversation(key)
            await self._load(need, [])
        except BaseException:
            self._commits.give_turn_back()
            raise
        found = {key: self._state.slot_of_key(key) for key in keys}
        return {key: slot for key, slot in found.items() if slot is not None}

    def give_turn_back(self) -> None:
        """Ends a turn that commits nothing."""
        self._commits.give_turn_back()

    async def commit(self, written: Sequence[Record]) -> None:
        """Commits records that give out no version, in the turn that was taken."""
        await asyncio.shield(self._commit(written, self._state.version))

    async def commit_row(self, row: Conversation, members: Collection[Member]) -> None:
        """Commits a conversation's row as it is given, in the turn that was taken, and raises
        the version of each member's list.
        """
        version = self._state.version
        written = Written(
            row.key, row.id, (), conversation_row(row),
            tuple(member_row(m, version + n) for n, m in enumerate(members, 1)),
        )  # fmt: skip
        await asyncio.shield(self._commit([written], version + len(members)))

    def _commit(
        self, written: Sequence[Record], version: int, moves: Sequence[_Moves] = ()
    ) -> Answer:
        """Submits what is to be written, or ends the turn if that is nothing."""
        own: Answer = asyncio.get_running_loop().create_future()
        answers = [own, *(move.answer for move in moves)]
        if written:
            self._commits.submit(written, version, answers)
            return own
        self._commits.give_turn_back()
        for answer in answers:
            if not answer.done():
                answer.set_result(None)
        return own

    async def _load(self, need: Need, moves: Sequence[_Moves]) -> None:
        for move in moves:
            for marker in move.markers:
                need.conversation(marker.key, marker.user)
        wanted = need.wanted()
        if wanted:
            need.take(*await self._commit_overlay.read(need.pending(), load, wanted))

    def _written(self, write: ConversationWrite, version: int) -> tuple[Written, int]:
        """The record of a write; members that it changed get new versions of their lists."""
        conversation = write.conversation
        slot = self._state.slot(conversation.id)
        members = []
        for member in write.members.values():
            version += 1
            members.append(member_row(member, version))
        same_row = slot is not None and (
            slot.conversation.membership_version == conversation.membership_version
            and slot.conversation.sealed_name == conversation.sealed_name
        )
        row = None if same_row else conversation_row(conversation)
        return (
            Written(
                conversation.key, conversation.id, tuple(write.entries), row, tuple(members)
            ),
            version,
        )  # fmt: skip

    def _move(self, moves: Sequence[_Moves], written: list[Record], version: int) -> int:
        """Adds the moves' records to `written`; returns the highest version given out."""
        markers: dict[tuple[ConversationKey, UserId], MarkerMove] = {}
        for move in moves:
            written += [OffsetSet(o.user, o.endpoint, o.key, o.seq) for o in move.offsets]
            for marker in move.markers:
                other = markers.get((marker.key, marker.user))
                if other is None or other.seq < marker.seq:
                    markers[marker.key, marker.user] = marker
        appended = {
            record.key: record for record in written if markers and isinstance(record, Written)
        }
        for (key, user), marker in markers.items():
            slot = self._state.slot_of_key(key)
            if slot is None or marker.seq > slot.conversation.head:
                continue  # I9: never past head
            member = _member_after(appended.get(key), user, slot)
            if member is None or member.marker >= marker.seq:
                continue
            version += 1
            row = member_row(member.marked(marker.seq, marker.countable), version)
            written.append(Written(key, slot.conversation.id, (), None, (row,)))
        return version

    async def _keep_within_bound(self) -> None:
        """Slows appends down as what is pending nears its bound, and stops them there.

        A bound alone would stop them for as long as it takes to move a slice, again and again.
        """
        fill = self._state.entries / self._settings.pending_entries
        if fill >= 1:
            await self._wait_for_room()
        elif fill > _SLOWER_FROM:
            share = (fill - _SLOWER_FROM) / (1 - _SLOWER_FROM)
            await asyncio.sleep(share * _SLOWEST_SECONDS)

    async def _wait_for_room(self) -> None:
        """Waits while too much is pending; raises `StorageUnavailable` after a bound."""
        try:
            async with asyncio.timeout(self._settings.pending_wait_seconds):
                while self._state.entries >= self._settings.pending_entries:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self.failure = StorageUnavailable.code
            raise StorageUnavailable(
                "Writing into the tables does not keep up.", retry_after_seconds=1.0
            ) from None

    def freed(self) -> None:
        """Says that pending entries were freed."""
        self.failure = ""
        self._room.set()

    # --- reading ------------------------------------------------------------------------

    async def views(
        self, user: UserId, ids: Collection[ConversationId]
    ) -> Mapping[ConversationId, tuple[Conversation, Member]]:
        """Row and the user's member row of those conversations that know the user."""
        found: dict[ConversationId, tuple[Conversation, Member]] = {}
        unknown: list[ConversationId] = []
        for conversation in ids:
            slot = self._state.slot(conversation)
            member = slot.members.get(user) if slot is not None else None
            if slot is not None and member is not None:
                found[conversation] = (slot.conversation, member)
            elif slot is None or not slot.knows(user):
                unknown.append(conversation)
        if not unknown:
            return found
        slots, rows = await self._overlay.read(
            {name: self._state.slot(name) for name in unknown}, Tables.views, user, unknown
        )
        for row, member in rows:
            slot = self._state.slot(row.id) or slots[row.id]
            if slot is None:
                found[row.id] = (row, member)
            else:
                found[row.id] = (slot.conversation, slot.members.get(user, member))
        return found

    async def members(self, key: ConversationKey) -> Mapping[UserId, Member]:
        """All members, present and gone."""
        slot = self._state.slot_of_key(key)
        if slot is not None and slot.complete:
            return dict(slot.members)
        slot, rows = await self._overlay.read(slot, Tables.members, key)
        members = {member.user: member for member in rows}
        now = self._state.slot_of_key(key)
        for known in (slot, now):  # not the same one if it was evicted meanwhile
            if known is not None:
                members |= known.members
        if now is not None and now is slot:
            now.members = dict(members)
            now.complete = True
        return members

    async def read(
        self, key: ConversationKey, after: Seq, up_to_inclusive: Seq
    ) -> Sequence[StoredEntry]:
        """The part of after+1..up_to_inclusive that was not trimmed."""
        slot = self._state.slot_of_key(key)
        pending: list[StoredEntry] = []
        if slot is not None:
            up_to_inclusive = min(up_to_inclusive, slot.conversation.head)
            after = max(after, slot.conversation.trimmed_up_to)
            if slot.pending:
                first = slot.pending[0].seq
                start, end = max(0, after + 1 - first), max(0, up_to_inclusive + 1 - first)
                pending = slot.pending[start:end]
                up_to_inclusive = min(up_to_inclusive, Seq(first - 1))
            if after >= up_to_inclusive:
                return pending
        pending, (row, entries) = await self._overlay.read(
            pending, Tables.part, key, after, up_to_inclusive
        )
        if slot is None and row is None:
            return ()
        slot = self._state.slot_of_key(key) or slot
        for known in (row, slot.conversation if slot else None):
            if known is not None:
                after = max(after, known.trimmed_up_to)
        if row is not None and not pending:
            up_to_inclusive = min(up_to_inclusive, row.head)
        return _checked(entries, after, up_to_inclusive) + pending

    async def rows(self, keys: Sequence[ConversationKey]) -> list[Conversation]:
        """Rows of those conversations that exist, in the order of `keys`."""
        slots = {key: self._state.slot_of_key(key) for key in keys}
        missing = [key for key, slot in slots.items() if slot is None]
        found: dict[ConversationKey, Conversation] = {}
        if missing:
            slots, rows = await self._overlay.read(slots, Tables.rows, missing)
            found = {row.key: row for row in rows}
        for key, before in slots.items():
            slot = self._state.slot_of_key(key) or before
            if slot is not None:
                found[key] = slot.conversation
        return [found[key] for key in keys if key in found]

    async def unarchived(self) -> Mapping[ConversationKey, int]:
        """What the tables know of conversations that are not fully archived, with the time of
        the first entry that is not, milliseconds since 1970; oldest first.

        Those that were archived since, and are not in the tables yet, are left out.
        """
        archived, found = await self._overlay.read(self._state.archived_keys(), Tables.unarchived)
        return {key: since_ms for key, since_ms in found.items() if key not in archived}

    async def conversations_of(
        self, user: UserId, *, changed_after: int = 0
    ) -> Sequence[UserConversation]:
        """The user's list with version > `changed_after`, oldest change first."""
        pending, rows = await self._overlay.read(
            self._state.pending_list(user), Tables.conversations_of, user, changed_after
        )
        lines = {line.key: line for line in rows}
        for line in pending:
            if line.version > changed_after:
                lines[line.key] = line
        return sorted(lines.values(), key=lambda line: line.version)

    async def offsets(self, user: UserId, endpoint: EndpointId) -> Mapping[ConversationKey, Seq]:
        """The read offsets that are durable for one endpoint."""
        pending, offsets = await self._overlay.read(
            self._state.pending_offsets(user, endpoint), Tables.offsets, user, endpoint
        )
        for key, seq in pending.items():
            offsets[key] = max(seq, offsets.get(key, seq))
        return offsets


def _checked(entries: list[StoredEntry], after: Seq, up_to_inclusive: Seq) -> list[StoredEntry]:
    """The tables' part, without what was trimmed while it was read.

    Raises `DataDamaged` where an entry is missing: nothing is ever answered short (I8).
    """
    found = [entry for entry in entries if after < entry.seq <= up_to_inclusive]
    if len(found) != max(0, up_to_inclusive - after):
        raise DataDamaged(
            f"tables.db holds {len(found)} of the entries {after + 1} to {up_to_inclusive}."
        )
    return found


def _member_after(written: Written | None, user: UserId, slot: Slot) -> Member | None:
    """The user's row after what the same commit writes before it."""
    member = slot.members.get(user)
    if written is None:
        return member
    known = {row.user: member_of(row, row.mac) for row in written.members if row.user == user}
    if not known and member is not None:
        known[user] = member
    move_markers(known, written.entries)
    return known.get(user)
