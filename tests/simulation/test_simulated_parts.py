"""What the simulation stands on: loop, clock, disk, network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from trunkline.client.link import ABNORMAL, Link
from trunkline.errors import StorageFull, StorageUnavailable, Unreachable
from trunkline.ports.outlet import Outlet
from trunkline.testing.clock import EPOCH_MS, SimulatedClock
from trunkline.testing.disk import SimulatedDisk
from trunkline.testing.loop import Deadlock, SimulatedLoop
from trunkline.testing.network import FrameObserver, Network, Session
from trunkline.wire.close import Close
from trunkline.wire.encoding import MESSAGEPACK, Encoding

Answer = TypeVar("Answer")
FRAMES = [bytes([number]) for number in range(50)]


def run(main: Coroutine[Any, Any, Answer], loop: SimulatedLoop) -> Answer:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def order_of_turns() -> list[int]:
    order: list[int] = []

    async def turn(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(turn(number))
    return order


def test_an_hour_of_virtual_time_passes_at_once() -> None:
    loop = SimulatedLoop(1)
    run(asyncio.sleep(3600.0), loop)
    assert 3600.0 <= loop.time() < 3600.1


def test_the_seed_decides_the_order_of_what_is_ready() -> None:
    assert run(order_of_turns(), SimulatedLoop(1)) == run(order_of_turns(), SimulatedLoop(1))
    assert run(order_of_turns(), SimulatedLoop(1)) != run(order_of_turns(), SimulatedLoop(2))


def test_a_wait_that_nothing_can_end_is_a_deadlock() -> None:
    loop = SimulatedLoop(1)
    waiting = loop.create_task(asyncio.Event().wait())
    with pytest.raises(Deadlock):
        loop.run_until_complete(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(waiting_for(waiting), loop)


async def waiting_for(task: asyncio.Task[Any]) -> None:
    await task


def test_wall_time_jumps_and_monotonic_time_does_not() -> None:
    loop = SimulatedLoop(1)
    clock = SimulatedClock(loop, skew_ms=-5_000, boot_seconds=100.0)
    before = clock.monotonic()
    clock.jump(3_600_000)
    assert clock.now_ms() == EPOCH_MS - 5_000 + 3_600_000
    assert clock.monotonic() == before == 100.0
    loop.close()


# --- disk ---------------------------------------------------------------------------------


def test_a_crash_forgets_nothing_that_was_synced_and_keeps_a_prefix_of_the_rest() -> None:
    kept: set[int] = set()
    for seed in range(40):
        disk = SimulatedDisk(seed)
        file = disk.open("journal")
        for record in FRAMES[:3]:
            file.append(record)
        run(file.sync(), SimulatedLoop(seed))
        for record in FRAMES[3:6]:
            file.append(record)
        disk.crash()
        records = list(disk.open("journal").records())
        assert records == FRAMES[: len(records)]
        kept.add(len(records))
    assert kept == {3, 4, 5, 6}


def test_what_is_left_of_a_dead_process_reaches_the_disk_no_more() -> None:
    disk = SimulatedDisk(1)
    file = disk.open("journal")
    file.append(b"before")
    disk.crash()
    with pytest.raises(StorageUnavailable):
        file.append(b"after")
    with pytest.raises(StorageUnavailable):
        run(file.sync(), SimulatedLoop(1))
    assert b"after" not in disk.open("journal").records()


def test_a_full_disk_takes_nothing_until_there_is_room() -> None:
    disk = SimulatedDisk(1)
    file = disk.open("journal")
    disk.full = True
    with pytest.raises(StorageFull):
        file.append(b"one")
    assert file.records() == ()
    disk.full = False
    file.append(b"two")
    assert file.records() == (b"two",)


# --- network ------------------------------------------------------------------------------


class Ends:
    """Both ends of one connection, and an observer that looks at nothing."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.network = Network(loop, seed, self.observe)
        self.network.accept = self.accept
        self.outlet: Outlet
        self.at_server: list[bytes] = []
        self.at_client: list[bytes] = []
        self.server_closed = 0
        self.client_closed: list[int] = []

    def observe(self, endpoint: str, encoding: Encoding) -> FrameObserver:
        return self

    def sent(self, data: bytes) -> None:
        """Nothing to see."""

    def written(self, data: bytes) -> None:
        """Nothing to see."""

    def accept(self, outlet: Outlet, name: str) -> Session:
        self.outlet = outlet
        return self

    def receive(self, data: bytes) -> None:
        self.at_server.append(data)

    def closed(self) -> None:
        self.server_closed += 1

    def frame_arrived(self, frame: bytes) -> None:
        self.at_client.append(frame)

    def link_closed(self, code: int, reason: str) -> None:
        self.client_closed.append(code)

    async def dial(self) -> Link:
        return await self.network.dialer("endpoint").dial(self, MESSAGEPACK)


@pytest.mark.parametrize("seed", range(5))
def test_a_connection_keeps_the_order_of_its_frames(seed: int) -> None:
    loop = SimulatedLoop(seed)
    ends = Ends(loop, seed)
    ends.network.spikes = 0.3

    async def talk() -> None:
        link = await ends.dial()
        for frame in FRAMES:
            link.send(frame)
            ends.outlet.write(frame)
        await asyncio.sleep(60.0)

    run(talk(), loop)
    assert ends.at_server == ends.at_client == FRAMES


def test_what_is_in_flight_when_a_connection_breaks_arrives_in_part() -> None:
    arrived: set[int] = set()
    for seed in range(20):
        loop = SimulatedLoop(seed)
        ends = Ends(loop, seed)

        async def talk(ends: Ends = ends) -> None:
            link = await ends.dial()
            for frame in FRAMES:
                link.send(frame)
            (wire,) = ends.network.wires()
            wire.tear()
            link.send(b"too late")
            await asyncio.sleep(60.0)

        run(talk(), loop)
        assert ends.at_server == FRAMES[: len(ends.at_server)]
        assert (ends.server_closed, ends.client_closed) == (1, [ABNORMAL])
        arrived.add(len(ends.at_server))
    assert len(arrived) > 5


def test_an_end_of_a_half_open_connection_learns_of_it_late() -> None:
    loop = SimulatedLoop(3)
    ends = Ends(loop, 3)

    async def talk() -> None:
        await ends.dial()
        (wire,) = ends.network.wires()
        wire.tear(server_learns=False)
        await asyncio.sleep(1.0)
        assert (ends.server_closed, ends.client_closed) == (0, [ABNORMAL])
        await asyncio.sleep(60.0)

    run(talk(), loop)
    assert ends.server_closed == 1


def test_the_server_closes_with_a_code_after_what_it_wrote() -> None:
    loop = SimulatedLoop(4)
    ends = Ends(loop, 4)

    async def talk() -> None:
        await ends.dial()
        ends.outlet.write(b"last")
        ends.outlet.close(Close.SHUTTING_DOWN, "shutting_down")
        await asyncio.sleep(60.0)

    run(talk(), loop)
    assert (ends.at_client, ends.client_closed) == ([b"last"], [Close.SHUTTING_DOWN])
    assert ends.server_closed == 1


def test_nobody_is_reached_who_is_cut_off() -> None:
    loop = SimulatedLoop(5)
    ends = Ends(loop, 5)
    ends.network.cut_off.add("endpoint")
    with pytest.raises(Unreachable):
        run(ends.dial(), loop)
