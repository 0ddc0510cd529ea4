"""Runs a replay: some endpoints online, every line sent, the others come after, all proven."""

import asyncio
import resource
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

import msgspec

from trunkline.client import SqliteStore
from trunkline.client.link import Dialer
from trunkline.client.websocket import WebSocketDialer
from trunkline.errors import Unreachable
from trunkline.model import ConversationKind, UserId
from trunkline.replay.audience import Audience
from trunkline.replay.chaos import Unruliness, UnrulyDialer
from trunkline.replay.chatfile import ChatFile
from trunkline.replay.participants import (
    OTHER_SERVER_WINDOW,
    OWN_SERVER_WINDOW,
    Participants,
)
from trunkline.replay.proving import Proving
from trunkline.replay.result import Result
from trunkline.replay.scratch import scratch_directory
from trunkline.replay.sending import SENDERS_AT_A_TIME, Sending, Sent
from trunkline.replay.server_metrics import read_sums, wait_until_archived
from trunkline.replay.witness import Witness

GATHERING_SECONDS: Final = 1.0
"""So long the sending waits for those who are to be online; the rest arrive meanwhile."""
PROVING_AT_A_TIME: Final = 32
ACKNOWLEDGED: Final = "acknowledged"
"""The stage in which lines are sent, as progress is told."""
ARCHIVED_SECONDS: Final = 30.0
STALLED_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 1.0
_TIERS: Final = ("cached", "hot", "cold")
_TIER_ENTRIES: Final = 'trunkline_tier_entries_total{tier="%s"}'
_SPARE_FILES: Final = 256
_HOT_SINGLE: Final = 80
_HOT_GROUP: Final = 12_000

OWN_SERVER_SETTINGS: Final = {
    "TRUNKLINE_SERVICES__SENDS_PER_SECOND": "1000000",
    "TRUNKLINE_SERVICES__SEND_BURST": "1000000",
}
"""A replay sends as fast as the server stores: what bounds a person does not bound it."""


class Progress(Protocol):
    """Told how far a stage is."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


class Target(msgspec.Struct, frozen=True):
    """The server that is driven. `own`: this process started it, for itself alone.

    `ops_urls`: where the metrics of its processes are, as far as that is known.
    """

    url: str
    ops_urls: Sequence[str]
    own: bool


class Plan(msgspec.Struct, frozen=True):
    """How the file is played.

    `online`: the share of endpoints that are pushed to meanwhile. `chaos`: whether the
    network misbehaves. `sends` false: the file was sent before, by a replay that was whole;
    everyone comes and is proven. `written_since`: whether more than the file may be there.
    """

    online: float = 0.3
    chaos: bool = False
    sends: bool = True
    written_since: bool = False


class Replay:
    """One run over one file against one server."""

    def __init__(
        self,
        chat: ChatFile,
        target: Target,
        token_of: Callable[[UserId], str],
        plan: Plan,
        random: Random,
        progress: Progress,
    ) -> None:
        self._chat = chat
        self._target = target
        self._plan = plan
        self._random = random
        self._progress = progress
        self._token_of = token_of
        self._dialer: Dialer = WebSocketDialer(target.url)
        self._held = chat.endpoints()
        self._proving_room = asyncio.Semaphore(PROVING_AT_A_TIME)
        self._online = 0
        self._proved = 0
        self._sent = Sent()
        self._moved_at = time.monotonic()

    async def run(self) -> Result:
        """Plays the file to its end; raises what makes it impossible to go on."""
        result = Result(len(self._chat.messages), len(self._chat.scripts), len(self._held))
        started = self._moved_at = time.monotonic()
        before = await self._tier_entries()
        chaos = self._unruly() if self._plan.chaos else None
        with scratch_directory() as folder:
            # Local stores hold bodies in the clear, as on people's devices: never in a
            # server's data directory, and gone with the replay.
            async with SqliteStore(folder / "endpoints.db") as store:
                participants = Participants(
                    self._target.url,
                    chaos or self._dialer,
                    store,
                    self._token_of,
                    self._random,
                    window=OWN_SERVER_WINDOW if self._target.own else OTHER_SERVER_WINDOW,
                )
                async with asyncio.TaskGroup() as tasks:
                    watching = tasks.create_task(self._watch())
                    await self._play(participants, result)
                    watching.cancel()
        counted = participants.counters
        result.pushed, result.pulled = counted.pushed, counted.pulled
        result.gaps_seen = counted.gaps_seen
        result.duplicates_dropped = counted.duplicates_dropped
        # What an endpoint noticed and healed counts as well.
        result.digest_mismatches += counted.digest_mismatches
        result.reports = dict(participants.reports)
        result.resent = counted.resent
        result.chaos = chaos.havoc if chaos is not None else None
        after = await self._tier_entries()
        if before is not None and after is not None:
            result.read_from = {tier: after[tier] - before[tier] for tier in _TIERS}
        result.seconds = round(time.monotonic() - started, 3)
        return result

    async def _play(self, participants: Participants, result: Result) -> None:
        witness = Witness(self._dialer, self._token_of)
        proving = Proving(
            self._held,
            witness,
            written_since=self._plan.written_since,
            pushes_are_lost=self._plan.chaos,
        )
        online: Sequence[UserId] = ()
        if self._plan.sends:
            online = self._choose_online()
            self._online = len(online)
            audience = Audience(participants, online, self._arrived)
            await self._play_online(audience, witness, proving, result)
        else:
            result.acked = result.already_stored = result.messages
        async with asyncio.TaskGroup() as tasks:
            for user in self._held.keys() - set(online):
                tasks.create_task(self._come_after(user, participants, proving))
        proven = proving.proven
        result.endpoints_complete, result.copies = proven.complete, proven.copies
        result.gaps, result.doubles = proven.gaps, proven.doubles
        result.digest_mismatches = proven.mismatches
        result.incomplete += proven.incomplete

    async def _play_online(
        self, audience: Audience, witness: Witness, proving: Proving, result: Result
    ) -> None:
        """Some come online, all lines are sent, those who were online are proven."""
        result.online = len(audience.users)
        sending = Sending(audience, witness, self._acked)
        self._sent = sending.sent
        audience.open()
        async with asyncio.TaskGroup() as tasks:
            for user in audience.users:
                tasks.create_task(self._attend(user, audience, proving))
            await audience.gather(GATHERING_SECONDS)
            started = time.monotonic()
            await sending.make_groups(self._chat)
            await sending.send_lines(self._chat)
            seconds = time.monotonic() - started
            proving.made |= sending.sent.made
            audience.dismiss()
            await self._let_archive()
        sent = sending.sent
        result.acked, result.already_stored = sent.acked, sent.already_stored
        result.incomplete += sent.refused
        result.sending_seconds = round(seconds, 3)
        result.acked_per_second = round(sent.acked / seconds) if seconds else 0

    async def _attend(self, user: UserId, audience: Audience, proving: Proving) -> None:
        await audience.attend(user, proving, self._proving_room)
        self._proven()

    async def _come_after(self, user: UserId, participants: Participants, proving: Proving) -> None:
        """An endpoint that was away: it comes, syncs, pulls, and is proven."""
        async with self._proving_room, participants.endpoint(user, push=True) as client:
            await proving.prove(user, client)
        self._proven()

    def _arrived(self, present: int) -> None:
        self._moved("online", present, self._online)

    def _acked(self) -> None:
        self._moved(ACKNOWLEDGED, self._sent.acked, len(self._chat.messages))

    def _proven(self) -> None:
        self._proved += 1
        self._moved("proven", self._proved, len(self._held))

    def _moved(self, stage: str, done: int, total: int) -> None:
        self._moved_at = time.monotonic()
        self._progress(stage, done, total)

    async def _watch(self) -> None:
        """Clients come back for ever to a server that is gone for good: a replay does not."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if time.monotonic() - self._moved_at > STALLED_SECONDS:
                raise Unreachable(f"Nothing moved for {STALLED_SECONDS:.0f} seconds.")

    def _choose_online(self) -> Sequence[UserId]:
        """A random share of the endpoints, as far as sockets allow."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(1, soft - SENDERS_AT_A_TIME - PROVING_AT_A_TIME - _SPARE_FILES)
        users = sorted(self._held, key=str.encode)
        return self._random.sample(users, min(round(len(users) * self._plan.online), most))

    def _unruly(self) -> UnrulyDialer:
        return UnrulyDialer(self._dialer, self._random, Unruliness())

    async def _let_archive(self) -> None:
        """Where a conversation outgrows the hot tier: those who come after read it from cold."""
        outgrown = any(
            sum(map(len, script.texts.values()))
            > (_HOT_SINGLE if script.kind is ConversationKind.SINGLE else _HOT_GROUP)
            for script in self._chat.scripts.values()
        )
        if outgrown and self._target.ops_urls:
            await wait_until_archived(self._target.ops_urls, ARCHIVED_SECONDS)

    async def _tier_entries(self) -> dict[str, int] | None:
        """Entries that the server has read from each tier so far."""
        metrics = await read_sums(self._target.ops_urls)
        if metrics is None:
            return None
        return {tier: int(metrics.get(_TIER_ENTRIES % tier, 0.0)) for tier in _TIERS}
