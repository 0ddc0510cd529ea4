"""Proves an endpoint: its copies reach the server's heads, digests and contents agree."""

import asyncio
from typing import Final

import msgspec

from trunkline.client import Client
from trunkline.core.digest import to_hex
from trunkline.errors import NotMember, TrunklineError, Unreachable
from trunkline.model import ConversationId, UserId
from trunkline.replay.chatfile import Script
from trunkline.replay.comparison import Leniency, compare
from trunkline.replay.result import Incomplete
from trunkline.replay.witness import Witness
from trunkline.wire.frames import Changed

ENDPOINT_SECONDS: Final = 500.0
"""An endpoint that is not complete after so long is reported as it is."""
LOOKS: Final = 40
_LOOK_AGAIN_SECONDS: Final = 0.25


class Proven(msgspec.Struct):
    """What the proofs found so far. `mismatches`: copies whose digest is not the server's."""

    complete: int = 0
    copies: int = 0
    gaps: int = 0
    doubles: int = 0
    mismatches: int = 0
    incomplete: list[Incomplete] = msgspec.field(default_factory=list)


class Proving:
    """Checks endpoints against the server's word and against the file.

    `pushes_are_lost`: the network may have taken the last push of a conversation, so that
    only a reconnect tells.

    Attributes:
        made: the groups of which every member sees everything, to be filled in before.
        proven: what was found so far.
    """

    def __init__(
        self,
        held: dict[UserId, list[Script]],
        witness: Witness,
        *,
        written_since: bool,
        pushes_are_lost: bool,
    ) -> None:
        self._held = held
        self.made: set[ConversationId] = set()
        self._witness = witness
        self._written_since = written_since
        self._pushes_are_lost = pushes_are_lost
        self.proven = Proven()

    async def prove(self, user: UserId, client: Client) -> None:
        """Waits until the endpoint has caught up, then compares; records what it lacks."""
        lacking: list[Incomplete] = []
        try:
            async with asyncio.timeout(ENDPOINT_SECONDS):
                views = await self._caught_up(user, client)
                for script in self._held[user]:
                    reasons = await self._compare(client, script, views.get(script.id))
                    lacking += [Incomplete(user, script.name, reason) for reason in reasons]
        except TimeoutError:
            reason = f"not complete after {ENDPOINT_SECONDS:.0f} seconds"
            lacking.append(Incomplete(user, None, reason))
        except TrunklineError as error:
            lacking.append(Incomplete(user, None, f"{error.code}: {error.detail}"))
        self.proven.complete += not lacking
        self.proven.incomplete += lacking

    async def _caught_up(self, user: UserId, client: Client) -> dict[ConversationId, Changed]:
        """The server's views, once the endpoint reaches them, or as they are at last."""
        views: dict[ConversationId, Changed] = {}
        for look in range(LOOKS):
            await client.wait_synced()
            try:
                views = await self._witness.views(user)
            except Unreachable:  # it may be starting again; the last look does not forgive it
                if look == LOOKS - 1:
                    raise
            else:
                if all(_reaches(client, view) for view in views.values()):
                    break
            if self._pushes_are_lost and look % 8 == 0:
                client.drop_connection()
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return views

    async def _compare(self, client: Client, script: Script, view: Changed | None) -> list[str]:
        """In which ways the copy is neither the server's nor the file's."""
        if view is None:
            return ["the server does not know it for this user"]
        try:
            proof = client.proof(script.id)
        except NotMember:
            return ["the endpoint does not know it"]
        entries = await client.history(script.id)
        difference = compare(script, view.first, view.head, entries, self._leniency(script))
        proven = self.proven
        proven.copies += len(entries)
        proven.gaps += difference.gaps
        proven.doubles += difference.doubles
        reasons = [str(difference)] if difference else []
        told = (view.first, view.head, view.digest)
        if told != (proof.first, proof.last, to_hex(proof.digest)):
            proven.mismatches += 1
            reasons.append(
                f"digest of {proof.first} to {proof.last} is not the server's "
                f"of {view.first} to {view.head}"
            )
        return reasons

    def _leniency(self, script: Script) -> Leniency:
        return Leniency(late_view=script.id not in self.made, written_since=self._written_since)


def _reaches(client: Client, view: Changed) -> bool:
    try:
        return client.proof(view.conversation).last >= view.head
    except NotMember:
        return False
