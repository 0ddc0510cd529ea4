"""Publishes to the other workers' inboxes: packed, numbered, sealed, one round trip a batch.

What is queued while one publish is under way goes with the next. Each packet to an inbox has
the next number. In a silence beats repeat the last one, soon at first and then more rarely, so
that a receiver misses even the last packet, and some of the beats may be lost as well.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from trunkline.core.packets import (
    Envelope,
    Frame,
    Note,
    Packet,
    Told,
    encode_packet,
    packet_associated_data,
)
from trunkline.core.sealing import PacketCipher
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, UserId, WorkerId
from trunkline.ports.bus import Bus
from trunkline.ports.cached import CachedTier
from trunkline.ports.clock import Clock
from trunkline.services.metrics import Metrics

_log = structlog.get_logger("trunkline.publishing")

_BEAT_PAUSES: Final = (0.5, 0.5, 1.0, 1.0, 2.0)
"""Between the last packet and the beats after it; the last pause goes on."""
_BEATS_FOR_SECONDS: Final = 60.0
_PACKET_BYTES: Final = 1024 * 1024
"""A packet ends behind the frame with which it grows past this."""
_QUEUED_BYTES: Final = 8 * 1024 * 1024
"""So much waits for one inbox, and as much for it to be known whose: of frames that come then
only the heads are told, later; for want of notes everything is compared.
"""
_TOLD_BYTES: Final = 200
_USER_BYTES: Final = 100
_RETRY_SECONDS: Final = (0.2, 5.0)


class _Outgoing:
    """What waits for one inbox.

    Attributes:
        number: that of the last packet.
        beat_at: when to repeat it, if nothing else is sent.
    """

    __slots__ = (
        "_beats", "_sent_at", "beat_at", "bytes", "everything", "frames", "notes", "number", "told",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.beat_at = math.inf
        self._sent_at = -math.inf
        self._beats = 0
        self.clear()

    def clear(self) -> None:
        self.frames: list[Frame] = []
        self.notes: list[Note] = []
        self.told: list[Told] = []
        self.everything = False
        self.bytes = 0

    def add_note(self, note: Note) -> None:
        if self._has_room():
            self.notes.append(note)
            self.bytes += _size_of(note)

    def add_told(self, told: Told) -> None:
        if self._has_room():
            self.told.append(told)
            self.bytes += _TOLD_BYTES

    def _has_room(self) -> bool:
        """Else the receiver is asked to compare everything."""
        self.everything = self.everything or self.bytes >= _QUEUED_BYTES
        return not self.everything

    def sent(self, now: float) -> int:
        """The number of the packet that is sent now."""
        self.number += 1
        self._sent_at = now
        self._beats = 0
        self.beat_at = now + _BEAT_PAUSES[0]
        return self.number

    def beat(self, now: float) -> int:
        """The number of the beat that is sent now."""
        self._beats += 1
        pause = _BEAT_PAUSES[min(self._beats, len(_BEAT_PAUSES) - 1)]
        self.beat_at = now + pause if now < self._sent_at + _BEATS_FOR_SECONDS else math.inf
        return self.number

    @property
    def waits(self) -> bool:
        return bool(self.frames or self.notes or self.told or self.everything)

    def take(self) -> Packet:
        """The next packet; what does not fit into it stays."""
        frames, size = self.frames, 0
        for position, frame in enumerate(frames, 1):
            size += len(frame.data)
            if size >= _PACKET_BYTES and position < len(frames):
                self.frames, self.bytes = frames[position:], self.bytes - size
                return Packet(frames[:position])
        packet = Packet(frames, self.notes, self.told, self.everything)
        self.clear()
        return packet


class Publisher:
    """Everything that leaves this worker for another.

    Attributes:
        lost: takes the conversations whose frames may not have arrived.
        lost_notes: called when notes were dropped; everybody is to compare everything.
    """

    def __init__(
        self,
        bus: Bus,
        cached: CachedTier,
        cipher: PacketCipher,
        worker: WorkerId,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._bus = bus
        self._cached = cached
        self._cipher = cipher
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._outgoing: dict[WorkerId, _Outgoing] = {}
        # One that was taken for dead may come back: its numbers go on, or it would take a lost
        # packet for one that it has.
        self._highest_buried = 0
        self._notes: list[tuple[Note, Collection[WorkerId]]] = []
        self._notes_bytes = 0
        self._notes_dropped = False
        self._wake = asyncio.Event()
        self._closing = False
        self._pause = _RETRY_SECONDS[0]
        self.lost: Callable[[Iterable[ConversationKey]], None] = _nobody_minds
        self.lost_notes: Callable[[], None] = lambda: None

    @property
    def queued_bytes(self) -> int:
        """About what waits for inboxes, and to be told whose."""
        return self._notes_bytes + sum(outgoing.bytes for outgoing in self._outgoing.values())

    def frame(self, frame: Frame, workers: Iterable[WorkerId]) -> None:
        """Queues a push frame for each of these workers."""
        for worker in workers:
            outgoing = self._to(worker)
            if outgoing.bytes >= _QUEUED_BYTES:
                self.lost([frame.key])
                continue
            outgoing.frames.append(frame)
            outgoing.bytes += len(frame.data)

    def note(self, note: Note, *, but: Collection[WorkerId] = ()) -> None:
        """Queues a note for the workers, other than `but`, that serve the users it names."""
        size = _size_of(note)
        if self._notes_bytes + size > _QUEUED_BYTES:
            if not self._notes_dropped:
                _log.warning("notes_dropped", queued=len(self._notes), bytes=self._notes_bytes)
            self._notes_dropped = True
            return
        self._notes.append((note, but))
        self._notes_bytes += size
        self._wake.set()

    def tell(self, told: Told, workers: Iterable[WorkerId]) -> None:
        """Queues a head for each of these workers."""
        for worker in workers:
            self._to(worker).add_told(told)

    def tell_everything(self, workers: Iterable[WorkerId]) -> None:
        """Asks these workers, and all that anything was ever sent to, to compare everything."""
        for worker in dict.fromkeys((*self._outgoing, *workers)):
            self._to(worker).everything = True

    def close(self) -> None:
        """`run` publishes what is queued and returns."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Publishes and beats until closed."""
        while True:
            # A wait that is over already ends without a word of its timeout.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_beat()):
                    await self._wake.wait()
            self._wake.clear()
            published = await self._flush()
            if self._closing:
                return
            await self._beat()
            if published:
                self._pause = _RETRY_SECONDS[0]
            else:
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, _RETRY_SECONDS[1])
                self._wake.set()

    async def _flush(self) -> bool:
        """Publishes all that is queued; returns whether that went well."""
        try:
            await self._resolve()
            while await self._publish():
                pass
        except TierUnavailable as error:
            _log.warning("not_published", code=error.code)
            return False
        return True

    def _to(self, worker: WorkerId) -> _Outgoing:
        outgoing = self._outgoing.get(worker)
        if outgoing is None:
            outgoing = self._outgoing[worker] = _Outgoing(self._highest_buried)
        self._wake.set()
        return outgoing

    async def _resolve(self) -> None:
        """Finds out which workers the notes go to."""
        notes, self._notes = self._notes, []
        users = dict.fromkeys(user for note, _ in notes for user in note.users)
        if not users:
            return
        try:
            workers_of = await self._bus.workers_of(users)
        except TierUnavailable:
            self._notes[:0] = notes
            raise
        self._notes_bytes -= sum(_size_of(note) for note, _ in notes)
        if self._notes_dropped:
            self._notes_dropped = False
            self.lost_notes()
        for note, but in notes:
            by_worker: dict[WorkerId, list[UserId]] = {}
            for user in note.users:
                for worker in workers_of.get(user, ()):
                    if worker not in but:
                        by_worker.setdefault(worker, []).append(user)
            for worker, named in by_worker.items():
                part = msgspec.structs.replace(note, users=tuple(named))
                self._to(worker).add_note(part)

    async def _publish(self) -> bool:
        """One packet to each worker that something waits for; returns whether there was any."""
        packets = {
            worker: outgoing.take() for worker, outgoing in self._outgoing.items() if outgoing.waits
        }
        if not packets:
            return False
        now = self._clock.monotonic()
        sealed: dict[WorkerId, bytes] = {}
        for worker, packet in packets.items():
            sealed[worker] = self._sealed(worker, self._outgoing[worker].sent(now), packet)
            self._metrics.crossed_frames.labels("sent").inc(len(packet.frames))
        try:
            dead = await self._send(sealed)
        except TierUnavailable:
            # The numbers are used up: the receivers see the gap. Those who watch but were
            # forgotten meanwhile are told the heads.
            for worker, packet in packets.items():
                self.lost(_keys(packet))
                if packet.everything:
                    self._to(worker).everything = True
                for note in packet.notes:
                    self.note(note)
            raise
        for worker in dead:
            await self._bury(worker, packets[worker])
        return True

    async def _send(self, sealed: dict[WorkerId, bytes]) -> Collection[WorkerId]:
        dead = await self._bus.publish(sealed)
        self._metrics.packets.labels("sent").inc(len(sealed))
        self._metrics.packet_bytes.labels("sent").inc(sum(map(len, sealed.values())))
        return dead

    def _sealed(self, worker: WorkerId, number: int, packet: Packet) -> bytes:
        place = packet_associated_data(self._worker, worker, number)
        sealed = self._cipher.seal(encode_packet(packet), place)
        return encode_packet(Envelope(self._worker, number, sealed))

    def _until_beat(self) -> float | None:
        """Seconds until the next beat is due; None while none is."""
        earliest = min((out.beat_at for out in self._outgoing.values()), default=math.inf)
        return None if earliest == math.inf else max(0.0, earliest - self._clock.monotonic())

    async def _beat(self) -> None:
        """Repeats the last number to those who have heard nothing since."""
        now = self._clock.monotonic()
        sealed = {
            worker: self._sealed(worker, outgoing.beat(now), Packet())
            for worker, outgoing in self._outgoing.items()
            if outgoing.beat_at <= now
        }
        if not sealed:
            return
        try:
            dead = await self._send(sealed)
        except TierUnavailable as error:
            _log.warning("beat_not_sent", code=error.code)
            return
        for worker in dead:
            await self._bury(worker, Packet())

    async def _bury(self, worker: WorkerId, packet: Packet) -> None:
        """Nobody hears this worker: it is named no more. If it lives, it registers again."""
        _log.info("worker_gone", worker=worker)
        left = self._outgoing.pop(worker, None)
        if left is not None:
            self._highest_buried = max(self._highest_buried, left.number)
        packets = [packet] if left is None else [packet, Packet(left.frames, left.notes, left.told)]
        keys = dict.fromkeys(key for one in packets for key in _keys(one))
        users = dict.fromkeys(user for one in packets for note in one.notes for user in note.users)
        if keys:
            await self._cached.unwatch(list(keys), worker)
        if users:
            await self._bus.absent(list(users), worker)


def _size_of(note: Note) -> int:
    return _TOLD_BYTES + sum([_USER_BYTES + len(user) for user in note.users])


def _keys(packet: Packet) -> list[ConversationKey]:
    return [frame.key for frame in packet.frames] + [told.key for told in packet.told]


def _nobody_minds(keys: Iterable[ConversationKey]) -> None:
    """Nothing is remembered yet."""
