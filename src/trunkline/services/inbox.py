"""Reads this worker's inbox: opens what other workers sent, and sees what is missing."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from trunkline.core.packets import (
    Envelope,
    Numbers,
    Packet,
    decode_envelope,
    decode_packet,
    packet_associated_data,
)
from trunkline.core.sealing import PacketCipher
from trunkline.errors import SealBroken
from trunkline.model import WorkerId
from trunkline.ports.bus import Bus
from trunkline.services.memberships import Memberships
from trunkline.services.metrics import Metrics
from trunkline.services.registry import Registry
from trunkline.services.repairs import Repairs
from trunkline.services.sharing import SharedFanOut
from trunkline.wire.frames import Notice

_log = structlog.get_logger("trunkline.inbox")
_CIPHERS_KEPT: Final = 1_024


class Inbox:
    """Takes packets in the order in which they arrive."""

    def __init__(
        self,
        bus: Bus,
        cipher_of: Callable[[WorkerId], PacketCipher],
        worker: WorkerId,
        registry: Registry,
        fanout: SharedFanOut,
        memberships: Memberships,
        repairs: Repairs,
        metrics: Metrics,
    ) -> None:
        self._bus = bus
        self._cipher_of = cipher_of
        self._worker = worker
        self._registry = registry
        self._fanout = fanout
        self._memberships = memberships
        self._repairs = repairs
        self._metrics = metrics
        self._numbers = Numbers()
        self._ciphers: dict[WorkerId, PacketCipher] = {}
        repairs.heard_of = self._numbers.publishers

    async def run(self) -> None:
        """Serves the inbox until cancelled."""
        async for data in self._bus.received():
            if isinstance(data, bytes):
                self._take(data)
            elif data is None:
                self._missed("subscription")
            else:
                _log.info("registrations_lost", keys=len(data.keys), users=len(data.users))
                self._repairs.forgotten(data.keys, data.users)
            await asyncio.sleep(0)  # what it wrote to sockets goes out before the next

    def _missed(self, what: str) -> None:
        _log.info("packets_missing", cause=what)
        self._metrics.bus_gaps.inc()
        self._repairs.missed()

    def _take(self, data: bytes) -> None:
        self._metrics.packets.labels("received").inc()
        self._metrics.packet_bytes.labels("received").inc(len(data))
        try:
            envelope = decode_envelope(data)
            packet = self._open(envelope)
        except (msgspec.MsgspecError, SealBroken) as error:
            # Of a keyring that is not everywhere yet, or no packet at all: as good as lost.
            _log.warning("packet_not_opened", bytes=len(data), error=type(error).__name__)
            self._missed("not opened")
            return
        beat = packet == _BEAT
        if not self._numbers.take(envelope.publisher, envelope.number, beat=beat):
            self._missed("number")
        if not beat:
            self._serve(packet)

    def _open(self, envelope: Envelope) -> Packet:
        publisher = envelope.publisher
        cipher = self._ciphers.get(publisher) or self._cipher_of(publisher)
        place = packet_associated_data(publisher, self._worker, envelope.number)
        packet = decode_packet(cipher.open(envelope.sealed, place))
        if publisher not in self._ciphers:  # only of those who could seal
            if len(self._ciphers) >= _CIPHERS_KEPT:
                del self._ciphers[next(iter(self._ciphers))]
            self._ciphers[publisher] = cipher
        return packet

    def _serve(self, packet: Packet) -> None:
        written = sum([self._fanout.show(frame) for frame in packet.frames])
        self._metrics.pushed.inc(written)
        self._metrics.crossed_frames.labels("received").inc(len(packet.frames))
        for note in packet.notes:
            if note.membership:
                self._memberships.settle(note.key, note.conversation, note.users)
                continue
            for user in note.users:
                for connection in self._registry.of_user(user):
                    if connection.push:
                        connection.write(Notice(note.conversation))
        for told in packet.told:
            self._repairs.told(told)
        if packet.everything:
            self._repairs.missed(registrations=False)


_BEAT: Final = Packet()
