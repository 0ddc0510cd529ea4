"""What came for a worker and was not taken yet, bounded in packets and in bytes.

Past a bound all is dropped and the reader told so: it then compares with the hot tier.
"""

import asyncio
import logging
from collections import deque

from trunkline.ports.bus import Forgotten

log = logging.getLogger(__name__)

Arrival = bytes | Forgotten | None


class Backlog:
    """In the order in which it came.

    Attributes:
        held_bytes: of the packets in it.
    """

    def __init__(self, most_packets: int, most_bytes: int) -> None:
        self._most_packets = most_packets
        self._most_bytes = most_bytes
        self._arrivals: deque[Arrival] = deque()
        self._arrived = asyncio.Event()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def put(self, arrival: Arrival) -> None:
        """Adds what came; None: before it something may be lost."""
        size = len(arrival) if isinstance(arrival, bytes) else 0
        if len(self) >= self._most_packets or self.held_bytes + size > self._most_bytes:
            log.warning(
                "this worker's inbox is full: %d packets, %d bytes dropped",
                len(self), self.held_bytes,
            )  # fmt: skip
            self._arrivals.clear()
            self.held_bytes = 0
            self._add(None, 0)
            if size > self._most_bytes:
                return
        self._add(arrival, size)

    def tell_of_gap(self) -> None:
        """Adds None, unless it is the last that is there."""
        if not self._arrivals or self._arrivals[-1] is not None:
            self.put(None)

    async def next(self) -> Arrival:
        """Takes the next out, once there is one."""
        while not self._arrivals:
            self._arrived.clear()
            await self._arrived.wait()
        arrival = self._arrivals.popleft()
        if isinstance(arrival, bytes):
            self.held_bytes -= len(arrival)
        return arrival

    def _add(self, arrival: Arrival, size: int) -> None:
        self._arrivals.append(arrival)
        self.held_bytes += size
        self._arrived.set()
