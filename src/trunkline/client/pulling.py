"""Drives sync and pull over one connection, as far as the policy wants it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from trunkline.client.backoff import Backoff
from trunkline.client.connection import Connection, ConnectionLost, wait_for
from trunkline.client.endpoint import Endpoint
from trunkline.client.healing import heal
from trunkline.client.policy import SyncPolicy
from trunkline.client.sending import MOVED_MAX
from trunkline.core.digest import to_hex
from trunkline.core.ranges import pack_sums
from trunkline.errors import ConversationShredded, ProtocolError, ShardMoved, TrunklineError
from trunkline.model import ConversationId, Seq
from trunkline.ports.clock import Clock
from trunkline.wire.frames import Ahead, Claim, HeldPart, Pull, Pulled, Range, Sync, Synced

RANGES_MAX: Final = 64
"""So many conversations are asked for in one pull."""
IDLE_SECONDS: Final = 1.0
"""So long nothing must be to do before the policy is asked what to pull when idle."""
UNWRITTEN_ENTRIES_MAX: Final = 8192
"""Past this, pulling waits until the local store has caught up."""
CLAIMS_MAX: Final = 256
"""So many conversations stand in one `ahead`."""
TRIES_MAX: Final = 8
"""So many retryable errors in a row end the connection."""

PROOFS_MAX: Final = 300
"""So often a server may ask for more of the vector before it answers: it has 256 ranges."""


class _Proof(NamedTuple):
    """What a `sync` says of the vector besides its digest."""

    vector: dict[ConversationId, Seq] | None = None
    range_sums: bytes | None = None
    parts: list[HeldPart] | None = None


class Pulling:
    """Keeps the endpoint's copies complete while the connection lasts."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        policy: SyncPolicy,
        clock: Clock,
        uniform: Callable[[], float],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        """`settle`: saves and confirms what came."""
        self._endpoint = endpoint
        self._settle = settle
        self._connection = connection
        self._policy = policy
        self._clock = clock
        self._backoff = Backoff(uniform, first_seconds=0.2, most_seconds=10.0)
        self._work = asyncio.Event()
        self._turn = -1
        self._idle_done = False

    def look(self) -> None:
        """Wakes up if there may be something new to sync or pull."""
        if self._endpoint.replica.turn != self._turn:
            self._endpoint.settled.clear()
            self._work.set()

    async def run(self) -> None:
        """Works until the connection ends; raises only what ends the client."""
        replica = self._endpoint.replica
        replica.want_sync()
        while True:
            self._work.clear()
            self._turn = replica.turn
            try:
                if replica.sync_wanted:
                    await self._sync()
                elif replica.doubts.ahead:
                    await self._ask_about_ahead()
                elif (conversation := replica.complete_again) is not None:
                    await heal(self._endpoint, conversation)
                elif not await self._pull_behind(idle=False):
                    await self._wait()
                self._backoff.succeeded()
            except ConnectionLost:
                return
            except TrunklineError as error:
                if not error.retryable:
                    raise
                await self._retry_later(error)

    async def _retry_later(self, error: TrunklineError) -> None:
        self._endpoint.report(error)
        delay = self._backoff.failed(error)
        most = MOVED_MAX if isinstance(error, ShardMoved) else TRIES_MAX
        if self._backoff.failures > most:
            self._connection.abandon("The server keeps refusing to sync.")
        self._endpoint.replica.want_sync()
        await asyncio.sleep(delay)

    async def _wait(self) -> None:
        """Nothing can be done now: waits for work, a gap's patience, or idleness."""
        replica = self._endpoint.replica
        due = replica.next_due(self._clock.monotonic())
        if due is not None:
            await wait_for(self._work, due + 0.001)
            return
        if self._turn == replica.turn:
            self._endpoint.settled.set()
        offer_idle = replica.is_behind and not self._idle_done
        if await wait_for(self._work, IDLE_SECONDS if offer_idle else None):
            self._idle_done = False
        elif not await self._pull_behind(idle=True):
            self._idle_done = True

    # --- sync -----------------------------------------------------------------------

    async def _sync(self) -> None:
        replica = self._endpoint.replica
        replica.sync_wanted = False
        replica.doubts.sync_begins()
        if replica.has_unconfirmed:  # the server's offsets then equal what is held
            await self._settle()
        cursor, following, steps = replica.cursor, "", 0
        proof = _Proof()
        while True:
            answer = await self._ask_sync(cursor, following, proof)
            if answer.vector_wanted:
                steps += 1
                if steps > PROOFS_MAX:
                    raise ProtocolError("The server asks for the vector again and again.")
                proof = await self._prove(answer)
                continue
            proof, steps = _Proof(), 0
            if not self._endpoint.is_of(answer.store):
                replica.doubts.sync_begins()
                return  # it said so: the next sync asks for everything
            replica.changed(answer.conversations)
            following = answer.next
            if not following:
                replica.sync_ended(answer.cursor)
                return

    async def _prove(self, answer: Synced) -> "_Proof":
        """What the server must be sent before it can answer: no more than it lacks."""
        vector = self._endpoint.replica.vector()
        if not answer.ranges_wanted and not answer.parts_wanted:
            return _Proof(vector=dict(vector.seqs))
        for _ in vector.divide():
            await asyncio.sleep(0)
        if not answer.parts_wanted:
            return _Proof(range_sums=pack_sums(vector.sums()))
        unlike = [vector.unlike(one.range, one.sums) for one in answer.parts_wanted]
        return _Proof(parts=[HeldPart(*part) for parts in unlike for part in parts.items()])

    async def _ask_sync(self, cursor: int, following: str, proof: "_Proof") -> Synced:
        digest = to_hex(self._endpoint.replica.vector().digest)
        answer = await self._connection.request(
            lambda number: Sync(
                number, cursor, digest, proof.vector, following, proof.range_sums, proof.parts
            )
        )
        if not isinstance(answer, Synced):
            raise ProtocolError("A sync was answered with something else.")
        return answer

    async def _ask_about_ahead(self) -> None:
        """Tells the server what it does not have, with its own proofs; it says what it has."""
        replica = self._endpoint.replica
        asked = {
            conversation: replica.held[conversation].last
            for conversation in islice(replica.doubts.ahead, CLAIMS_MAX)
        }
        claims = {
            conversation: Claim(held.proved, held.proof) if held.proof else Claim(held.last)
            for conversation in asked
            for held in [replica.held[conversation]]
        }
        mark = self._endpoint.mark
        answer = await self._connection.request(lambda number: Ahead(number, mark, claims))
        if not isinstance(answer, Synced):
            raise ProtocolError("What is ahead was answered with something else.")
        self._endpoint.is_of(answer.store)
        replica.told(asked, answer.conversations)

    # --- pull -----------------------------------------------------------------------

    async def _pull_behind(self, *, idle: bool) -> bool:
        """Pulls what the policy chooses; returns whether it chose anything."""
        behind = self._endpoint.replica.behind(self._clock.monotonic())
        if not behind:
            return False
        chosen = self._policy.choose(behind, idle=idle)[:RANGES_MAX]
        if not chosen:
            return False
        if self._endpoint.replica.unwritten_entries > UNWRITTEN_ENTRIES_MAX:
            await self._endpoint.save()
        try:
            await self._pull(chosen)
        except ConnectionLost:
            raise
        except TrunklineError as error:
            if error.retryable:
                raise
            await self._pull_apart(chosen, error)
        return True

    async def _pull_apart(
        self, conversations: Sequence[ConversationId], error: TrunklineError
    ) -> None:
        """One of the ranges was refused: asks for each alone, gives up the refused ones."""
        if len(conversations) > 1:
            for conversation in conversations:
                try:
                    await self._pull([conversation])
                except TrunklineError as alone:
                    if alone.retryable:
                        raise
                    self._refused(conversation, alone)
        else:
            self._refused(conversations[0], error)

    def _refused(self, conversation: ConversationId, error: TrunklineError) -> None:
        if isinstance(error, ConversationShredded):
            self._endpoint.replica.shredded(conversation)
            return
        self._endpoint.report(error)
        self._endpoint.replica.refused(conversation)

    async def _pull(self, conversations: Sequence[ConversationId]) -> None:
        replica = self._endpoint.replica
        after = replica.pull_begins(conversations)
        try:
            ranges = [Range(conversation, seq) for conversation, seq in after.items()]
            answer = await self._ask_pull(ranges, "")
            while answer.next:
                page, following = answer, answer.next
                for run in page.runs:
                    replica.pulled(run)
                if replica.unwritten_entries > UNWRITTEN_ENTRIES_MAX:
                    await self._endpoint.save()
                answer = await self._ask_pull([], following)
            for run in answer.runs:
                replica.pulled(run)
        except BaseException:
            replica.pull_failed(conversations)
            raise
        now = self._clock.monotonic()
        for conversation, before in after.items():
            replica.pull_ended(conversation, before, now)

    async def _ask_pull(self, ranges: list[Range], following: str) -> Pulled:
        answer = await self._connection.request(lambda number: Pull(number, ranges, following))
        if not isinstance(answer, Pulled):
            raise ProtocolError("A pull was answered with something else.")
        return answer
