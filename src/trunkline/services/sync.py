"""Sync by comparison: where views end against what an endpoint holds (DESIGN section 4)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from trunkline.core.digest import to_hex
from trunkline.core.envelope import name_associated_data
from trunkline.core.ranges import HELD_BYTES, PARTS, Vector, unpack_sums
from trunkline.core.views import View, check_position, view_of
from trunkline.errors import InvalidInput
from trunkline.model import (
    NO_DIGEST,
    NO_SEQ,
    Conversation,
    ConversationId,
    ConversationKey,
    Member,
    OffsetMove,
    Seq,
    UserConversation,
)
from trunkline.ports.cached import CachedTier
from trunkline.ports.hot import HotStore
from trunkline.ports.sealer import Sealer
from trunkline.services.access import Access, Views
from trunkline.services.answers import Answer, Answers, Position, position_of
from trunkline.services.charges import Charges
from trunkline.services.comparing import Comparison, Row
from trunkline.services.durable_offsets import DurableOffsets
from trunkline.services.listings import Listing, Offsets
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import paced, step_by_step
from trunkline.services.registry import Connection
from trunkline.services.turns import Turns
from trunkline.wire.frames import Changed, Confirm, HeldPart, RangeParts, Sync, Synced

_RECORDED_MOST: Final = 500
"""So many of the offsets that a sync proves are recorded; the others are only remembered."""
_FRAME_CHARGE: Final = 20
_ROWS_OF_ONE_CHARGE: Final = 4
_DESCRIBED_AT_ONCE: Final = 50
_NOTHING_HELD: Final = to_hex(NO_DIGEST)


class Syncs:
    """Serves `sync` and `confirm` frames."""

    def __init__(
        self,
        hot: HotStore,
        cached: CachedTier,
        comparison: Comparison,
        sealer: Sealer,
        views: Views,
        durable: DurableOffsets,
        metrics: Metrics,
        *,
        page_conversations: int,
        most_offsets: int,
        turns: Turns,
        charges: Charges,
        random_bits: Callable[[int], int],
    ) -> None:
        """`most_offsets`: of one frame. `charges`: for the conversations that frames name."""
        self._hot = hot
        self._cached = cached
        self._comparison = comparison
        self._sealer = sealer
        self._views = views
        self._durable = durable
        self._metrics = metrics
        self._page_conversations = page_conversations
        self._most_offsets = most_offsets
        self._turns = turns
        self._charges = charges
        self._answers = Answers(random_bits)

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        self._answers.drop(connection)

    async def sync(self, connection: Connection, frame: Sync) -> Synced:
        """A page of what changed, or what the endpoint must send first.

        A page goes on in the answer that it belongs to. If that is not kept any more, the
        endpoint is compared anew, and only what lies behind the page's position is listed.
        """
        self.charge(connection, len(frame.vector or ()) + _held_count(frame.parts or ()))
        start = position_of(frame.next) if frame.next else None
        answer = self._answers.of(connection)
        known = 0 if self._comparison.keeps(connection.user) else connection.listed
        async with self._turns.of(known):
            if start is None or answer is None or not answer.goes_on_at(start):
                found = await self._begin(connection, frame, start, answer)
                if isinstance(found, Synced):
                    return found
                answer, start = found, Position(found.cursor, found.after_key)
            return await self._page(connection, frame.request, answer, start.key)

    async def _begin(
        self,
        connection: Connection,
        frame: Sync,
        start: Position | None,
        answer: Answer | None,
    ) -> Answer | Synced:
        """All that is to be listed, or what the endpoint must send first."""
        async with self._comparison.locked(connection.user) as listing:
            if frame.parts is None or answer is None or answer.listing is not listing:
                await self._comparison.refresh(connection.user, listing)
                answer = self._answers.begin(
                    listing, frame.cursor, start or Position(listing.version or frame.cursor)
                )
            wanted = await self._compare(connection, frame, listing, answer)
            if wanted is not None:
                return wanted
            answer.settle()
        self._charges.take(connection.user, len(answer.lines or ()) / _ROWS_OF_ONE_CHARGE)
        return answer

    async def confirm(self, connection: Connection, frame: Confirm) -> None:
        """Raises the endpoint's read offsets; raises `NotMember`, `AheadOfHead` (I9)."""
        self.charge(connection, len(frame.offsets))
        access: dict[ConversationId, Access] = {}
        async for some in paced(list(frame.offsets)):
            found = await self._views.of_many(connection.user, some)
            for conversation in some:
                check_position(found[conversation].view, frame.offsets[conversation])
            access |= found
        async with self._comparison.locked(connection.user) as listing:
            async for moves in paced(list(frame.offsets.items())):
                offsets = listing.endpoints.get(connection.endpoint)
                raised = dict(moves) if offsets is None else _raise(offsets, moves)
                await self._record(connection, access, raised)

    # --- comparing ------------------------------------------------------------------------

    async def _compare(
        self, connection: Connection, frame: Sync, listing: Listing, answer: Answer
    ) -> Synced | None:
        """Finds what lies beyond what the endpoint holds, or says what must be sent for that."""
        offsets, ends = await self._offsets(connection, listing), listing.ends
        told = frame.vector
        if told is None and frame.vector_digest == _NOTHING_HELD:
            told = {}
        if told is not None:
            await self._take(connection, listing, answer, await self._clipped(told, ends))
        elif frame.parts is not None and answer.asked:
            held = _held_in_parts(frame.parts, answer.asked, ends)
            await self._take(connection, listing, answer, held)
            return self._want_parts(connection, frame, listing, answer)
        elif frame.vector_digest == to_hex(ends.digest):
            await self._prove(connection, listing)
        elif frame.vector_digest == to_hex(await offsets.digest()):
            answer.behind = offsets.behind(ends.seqs.keys())
        elif frame.range_sums is not None:
            sums = unpack_sums(frame.range_sums)
            await step_by_step(ends.divide())
            if list(sums) == ends.sums():  # by chance, since the digests differ
                return Synced(frame.request, vector_wanted=True)
            proven = await _compare_ranges(sums, ends, offsets, answer)
            await self._prove(connection, listing, proven)
            return self._want_parts(connection, frame, listing, answer)
        else:
            return Synced(frame.request, vector_wanted=True, ranges_wanted=True)
        return None

    async def _clipped(
        self, told: Mapping[ConversationId, Seq], ends: Vector
    ) -> dict[ConversationId, Seq]:
        """What an endpoint says it holds of everything, as far as there is so much."""
        held: dict[ConversationId, Seq] = {}
        async for some in paced(list(ends.seqs.items())):
            held.update((c, _within(told.get(c, NO_SEQ), end)) for c, end in some)
        return held

    async def _take(
        self,
        connection: Connection,
        listing: Listing,
        answer: Answer,
        held: Mapping[ConversationId, Seq],
    ) -> None:
        """What the endpoint says it holds counts from now on; recorded offsets only rise (I9)."""
        offsets, end_of = listing.endpoints[connection.endpoint], listing.ends.of
        raised: dict[ConversationId, Seq] = {}
        async for some in paced(list(held.items())):
            for conversation, seq in some:
                if seq < end_of(conversation):
                    answer.behind[conversation] = seq
                if len(raised) < _RECORDED_MOST and seq > offsets.of(conversation):
                    raised[conversation] = seq
            offsets.tell(some)
        await self._record_seen(connection, raised)

    async def _prove(
        self,
        connection: Connection,
        listing: Listing,
        ranges: Sequence[int] | None = None,
    ) -> None:
        """The endpoint holds all of these ranges, or of everything."""
        offsets, ends = listing.endpoints[connection.endpoint], listing.ends
        held = [ends.seqs.keys()] if ranges is None else map(ends.conversations, ranges)
        lacking = chain.from_iterable(map(offsets.lacking, held))
        raised = {
            c: ends.of(c) for c in islice(lacking, _RECORDED_MOST) if offsets.of(c) < ends.of(c)
        }
        if ranges is None:
            offsets.prove_all()
        else:
            offsets.prove(ranges)
        await self._record_seen(connection, raised)

    async def _record_seen(
        self, connection: Connection, raised: Mapping[ConversationId, Seq]
    ) -> None:
        if raised:
            access = await self._views.known(connection.user, raised)
            seen = {c: min(seq, access[c].view.last) for c, seq in raised.items() if c in access}
            await self._record(connection, access, seen)

    def _want_parts(
        self, connection: Connection, frame: Sync, listing: Listing, answer: Answer
    ) -> Synced | None:
        """Asks for what is held in ranges that differ, as many as fit into one frame."""
        ends, room = listing.ends, self._most_offsets // 2
        asked: dict[int, dict[ConversationId, Seq]] = {}
        while answer.wanted and (room > 0 or not asked):
            number = answer.wanted.pop(0)
            asked[number] = {c: ends.of(c) for c in ends.conversations(number)}
            room -= len(asked[number])
        answer.asked = asked
        if not asked:
            return None
        self._answers.keep(connection, answer)
        parts = [RangeParts(number, ends.part_sums(number)) for number in asked]
        return Synced(frame.request, vector_wanted=True, parts_wanted=parts)

    async def _offsets(self, connection: Connection, listing: Listing) -> Offsets:
        """What is known of the endpoint, from memory, the cached or the hot tier."""
        user, endpoint = connection.user, connection.endpoint
        offsets = listing.endpoints.get(endpoint)
        if offsets is None:
            known = await self._cached.offsets(user, endpoint)
            if known is None:
                known = await self._hot.offsets(user, endpoint)
                await self._cached.load_offsets(user, endpoint, known)
            offsets = Offsets(listing.ends)
            await offsets.load(known, listing.lines)
            listing.endpoints[endpoint] = offsets
        listing.endpoints.move_to_end(endpoint)
        return offsets

    async def _record(
        self,
        connection: Connection,
        access: Mapping[ConversationId, Access],
        offsets: Mapping[ConversationId, Seq],
    ) -> None:
        moves: list[OffsetMove] = []
        members: dict[ConversationKey, int] = {}
        for conversation, seq in offsets.items():
            row = access[conversation].conversation
            moves.append(OffsetMove(row.key, connection.user, connection.endpoint, seq))
            members[row.key] = row.member_count
        if moves:
            await self._cached.confirm(moves, members)
            self._durable.add(moves)

    def charge(self, connection: Connection, conversations: int) -> None:
        """For one frame that names so many; raises `InvalidInput`, `RateLimited`."""
        if conversations > self._most_offsets:
            raise InvalidInput(f"One frame names at most {self._most_offsets} conversations.")
        self._charges.take(connection.user, _FRAME_CHARGE + conversations)

    # --- pages ----------------------------------------------------------------------------

    async def _page(
        self, connection: Connection, request: int, answer: Answer, after_key: int
    ) -> Synced:
        """The rows behind a key that have something new, as of now."""
        room = self._page_conversations
        rows: list[Row] = []
        lines = answer.behind_key(after_key)
        while room > 0 and lines:
            some, lines = lines[:room], lines[room:]
            found = await self._hot.views(connection.user, [line.conversation for line in some])
            await self._remember_ends(connection, some, found)
            rows += [
                found[line.conversation]
                for line in some
                if line.conversation in found and answer.lists(line, *found[line.conversation])
            ]
            room = self._page_conversations - len(rows)
            after_key = some[-1].key
        if lines:
            self._answers.keep(connection, answer)
        else:
            self._answers.drop(connection)
        self._metrics.syncs.inc()
        described: list[Changed] = []
        async for portion in paced(rows, _DESCRIBED_AT_ONCE):
            described += [self.describe(*row) for row in portion]
        following = answer.next(after_key) if lines else ""
        return Synced(request, answer.cursor, described, following)

    async def _remember_ends(
        self,
        connection: Connection,
        lines: Sequence[UserConversation],
        rows: Mapping[ConversationId, Row],
    ) -> None:
        """Heads beyond what the user may see are not looked at again."""
        ended = [
            (line, row)
            for line in lines
            if (row := rows.get(line.conversation)) and (row[1].left_at or row[0].shredded)
        ]
        if ended:
            async with self._comparison.locked(connection.user) as listing:
                for line, row in ended:
                    listing.saw(line, *row)

    def describe(self, conversation: Conversation, member: Member) -> Changed:
        """What a member's endpoint must know of a conversation."""
        view = view_of(conversation, member)
        if conversation.shredded:
            return Changed(
                conversation.id, conversation.kind, view.last, view.first, to_hex(view.digest),
                digest_key="", marker=view.marker, left=view.left, shredded=True,
            )  # fmt: skip
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        return Changed(
            conversation.id,
            conversation.kind,
            view.last,
            view.first,
            to_hex(view.digest),
            cipher.digest_key.hex(),
            view.unread,
            view.marker,
            self._name(conversation, view),
            view.left,
        )

    def _name(self, conversation: Conversation, view: View) -> str | None:
        if not view.sealed_name:
            return None
        cipher = self._sealer.cipher(conversation.wrapped_key, conversation.place)
        return cipher.open(view.sealed_name, name_associated_data(conversation.id)).decode()


async def _compare_ranges(
    sums: Sequence[int], ends: Vector, offsets: Offsets, answer: Answer
) -> list[int]:
    """Notes what is behind, and in which ranges it is not known; returns those that are proven.

    Where the endpoint holds all, it needs no offsets, however old these are.
    """
    whole, known = ends.sums(), await offsets.sums()
    proven: list[int] = []
    for number, (told, all_of_it, offset) in enumerate(zip(sums, whole, known, strict=True)):
        if told not in (all_of_it, offset):
            answer.wanted.append(number)
        elif told == all_of_it:
            proven.append(number)
        else:
            answer.behind |= offsets.behind(ends.conversations(number))
    return proven


def _held_count(parts: Sequence[HeldPart]) -> int:
    return sum(len(part.held) for part in parts) // HELD_BYTES


def _held_in_parts(
    parts: Iterable[HeldPart],
    asked: Mapping[int, Mapping[ConversationId, Seq]],
    ends: Vector,
) -> dict[ConversationId, Seq]:
    """What is held in the ranges that were asked for.

    In parts that are not named it is all that was there when the endpoint was sent their sums.
    """
    told: dict[int, dict[int, bytes]] = {number: {} for number in asked}
    for one in parts:
        of_range = told.get(one.part // PARTS)
        if of_range is None:
            raise InvalidInput(f"Part {one.part} was not asked for.")
        of_range[one.part] = one.held
    held: dict[ConversationId, Seq] = {}
    for number, pieces in told.items():
        named = ends.held_in(number, pieces)
        held |= asked[number]
        held |= {c: _within(seq, ends.of(c)) for c, seq in named.items()}
    return held


def _within(seq: Seq, end: Seq) -> Seq:
    """What counts of what an endpoint holds: one that is ahead is told where the view ends."""
    return seq if seq <= end else NO_SEQ


def _raise(
    offsets: Offsets, told: Iterable[tuple[ConversationId, Seq]]
) -> dict[ConversationId, Seq]:
    """Those of the seqs that rise, which the endpoint holds from now on."""
    raised = {c: seq for c, seq in told if seq > offsets.of(c)}
    for conversation, seq in raised.items():
        offsets.move(conversation, seq)
    return raised
