"""What endpoints prove to have seen, and what follows where the store has lost it (I3)."""

import asyncio
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final

import structlog

from trunkline.core.seen import is_proven, proof_of
from trunkline.errors import InvalidInput, from_code
from trunkline.model import (
    NO_SEQ,
    ClientMessageId,
    Conversation,
    ConversationId,
    Draft,
    Kind,
    Member,
    Seq,
    UserId,
)
from trunkline.ports.clock import Clock
from trunkline.ports.hot import HotStore
from trunkline.ports.identity import Identity
from trunkline.ports.sealer import Sealer
from trunkline.services.access import Views
from trunkline.services.append import AppendService
from trunkline.services.metrics import Metrics
from trunkline.services.pacing import paced
from trunkline.services.registry import Connection
from trunkline.wire.frames import Ahead, Changed, Confirm, Error, Synced

CLAIMS_MAX: Final = 256
_ANSWER_SECONDS: Final = 30.0
_LOGGED_MOST: Final = 10

_log = structlog.get_logger("trunkline.claims")


class _Asking(Connection):
    """Stands for a claimant in the append queue: what would be written to it settles a future."""

    __slots__ = ("settled",)

    def __init__(self, claimant: Connection) -> None:
        super().__init__(
            claimant.name, claimant.user, claimant.endpoint, claimant.outlet, push=False
        )
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def refuse(self, frame: Error) -> None:
        if not self.settled.done():
            self.settled.set_exception(
                from_code(frame.code, frame.message, retry_after_seconds=frame.retry_after_seconds)
            )

    def flush_acks(self) -> None:
        if self.acks and not self.settled.done():
            self.settled.set_result(None)
        self.acks = []


class Claims:
    """Gives out proofs with confirms, and serves `ahead` frames."""

    def __init__(
        self,
        identity: Identity | None,
        hot: HotStore,
        views: Views,
        sealer: Sealer,
        append: AppendService,
        describe: Callable[[Conversation, Member], Changed],
        charge: Callable[[Connection, int], None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._identity = identity
        self._hot = hot
        self._views = views
        self._sealer = sealer
        self._append = append
        self._describe = describe
        self._charge = charge
        self._clock = clock
        self._metrics = metrics

    async def proofs(self, user: UserId, frame: Confirm) -> dict[ConversationId, str]:
        """Proofs of positions that were just confirmed, in hex; none without an identity."""
        if self._identity is None:
            return {}
        proofs: dict[ConversationId, str] = {}
        async for some in paced(list(frame.offsets)):
            for conversation, seen in (await self._views.known(user, some)).items():
                row = seen.conversation
                if not row.shredded:
                    cipher = self._sealer.cipher(row.wrapped_key, row.place)
                    proofs[conversation] = proof_of(cipher, frame.offsets[conversation]).hex()
        return proofs

    async def answer(self, connection: Connection, frame: Ahead) -> Synced:
        """The conversations of the claims as they are after these were taken."""
        if self._identity is None:
            raise InvalidInput("This server does not know which store it has.")
        known = await self._take(connection, frame, self._identity)
        rows = await self._hot.views(connection.user, known)
        return Synced(
            frame.request,
            conversations=[self._describe(*row) for row in rows.values()],
            store=self._identity.life,
        )

    async def _take(
        self, connection: Connection, frame: Ahead, identity: Identity
    ) -> Collection[ConversationId]:
        """Lets ids go on above what is proven; returns those of the conversations that are known.

        What nobody has becomes `lost` entries. Proof of what this life of the store has given
        out and does not hold begins another one. Raises what an append raises, and then a part
        may be done: asked again, it goes on.
        """
        if not 0 < len(frame.claims) <= CLAIMS_MAX:
            raise InvalidInput(f"`ahead` names 1 to {CLAIMS_MAX} conversations.")
        self._charge(connection, len(frame.claims))
        access = await self._views.known(connection.user, frame.claims.keys())
        proven: dict[ConversationId, Seq] = {}
        ahead: dict[ConversationId, tuple[Seq, Seq]] = {}
        for conversation, claim in frame.claims.items():
            seen = access.get(conversation)
            if seen is None or claim.seq <= seen.view.last:
                continue
            self._metrics.endpoints_ahead.inc()
            row = seen.conversation
            told = not seen.view.left and not row.shredded
            if told and is_proven(
                self._sealer.cipher(row.wrapped_key, row.place), claim.seq, claim.proof
            ):
                proven[conversation] = claim.seq
            ahead[conversation] = (seen.view.last, claim.seq)
        if ahead:
            some = dict(islice(ahead.items(), _LOGGED_MOST))
            _log.warning(
                "endpoint_ahead", user=connection.user, endpoint=connection.endpoint,
                conversations=len(ahead), proven=len(proven), heads_and_held=some,
            )  # fmt: skip
        if proven and frame.mark == identity.life.mark:
            await identity.begin("an endpoint proves to hold entries that are gone")
        for conversation, seq in proven.items():
            await self._fill(connection, conversation, seq)
        return access.keys()

    async def _fill(self, connection: Connection, conversation: ConversationId, up_to: Seq) -> None:
        """Fills with `lost` entries up to there, some at a time, so that others come between."""
        before = NO_SEQ
        while True:
            seen = (await self._views.known(connection.user, (conversation,))).get(conversation)
            if seen is None or seen.view.left or seen.view.last >= up_to:
                return
            if seen.view.last == before:
                raise InvalidInput("A message of this user has the id that filling it up needs.")
            before = seen.view.last
            asking = _Asking(connection)
            name = ClientMessageId(f"lost {before + 1} {connection.name}"[:64])
            self._append.submit(
                Draft(
                    conversation, connection.user, name, Kind.LOST, self._clock.now_ms(),
                    lost_up_to=up_to,
                ),
                asking,
            )  # fmt: skip
            async with asyncio.timeout(_ANSWER_SECONDS):
                await asking.settled
