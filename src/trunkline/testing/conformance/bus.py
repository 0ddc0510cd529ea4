"""Suite of the bus: each inbox its own packets, in order, and a loss is told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final, cast

from trunkline.model import UserId, WorkerId
from trunkline.ports.bus import Bus

BusMaker = Callable[..., AbstractAsyncContextManager[Sequence[Bus]]]
"""`make_buses(*workers)` opens a bus for each of these boot ids; all share one hub."""
Resubscribe = Callable[[WorkerId], Awaitable[None]]
"""Breaks a worker's subscription; it is made anew by itself, or was when this returns."""

_SECONDS: Final = 20.0
ONE, TWO, THREE = WorkerId("worker-1"), WorkerId("worker-2"), WorkerId("worker-3")
ANN, BOB, CID = UserId("ann"), UserId("bob"), UserId("cid}{%7D")


async def take(bus: Bus, count: int) -> list[bytes | None]:
    """The next `count` things in a worker's inbox."""
    taken: list[bytes | None] = []
    # Both are asynchronous generators, which the port does not promise.
    received = cast("Any", bus.received())
    async with asyncio.timeout(_SECONDS), aclosing(received):
        async for packet in received:
            taken.append(packet)
            if len(taken) == count:
                break
    return taken


class BusSuite:
    """Promises of `ports.bus.Bus`. Fixtures: `make_buses`, `resubscribe`."""

    async def test_packets_of_one_publisher_arrive_in_their_order(
        self, make_buses: BusMaker
    ) -> None:
        """DESIGN section 3: what was published first is pushed first."""
        async with make_buses(ONE, TWO) as (one, two):
            packets = [b"%d" % number for number in range(300)]
            for packet in packets:
                assert not await one.publish({TWO: packet})
            assert await take(two, 300) == packets

    async def test_packets_published_at_once_keep_their_order(self, make_buses: BusMaker) -> None:
        """Also when nobody waited for the one before."""
        async with make_buses(ONE, TWO) as (one, two):
            packets = [b"%d" % number for number in range(300)]
            async with asyncio.TaskGroup() as group:
                for packet in packets:
                    group.create_task(one.publish({TWO: packet}))
            assert await take(two, 300) == packets

    async def test_a_packet_reaches_the_inbox_that_it_names_and_no_other(
        self, make_buses: BusMaker
    ) -> None:
        """One call, one packet each."""
        async with make_buses(ONE, TWO, THREE) as (one, two, three):
            assert not await one.publish({TWO: b"to two", THREE: b"to three"})
            assert not await two.publish({ONE: b"to one"})
            assert not await one.publish({TWO: b"end", THREE: b"end"})
            assert await take(one, 1) == [b"to one"]
            assert await take(two, 2) == [b"to two", b"end"]
            assert await take(three, 2) == [b"to three", b"end"]

    async def test_each_of_several_publishers_keeps_its_order(self, make_buses: BusMaker) -> None:
        """Whatever came between."""
        async with make_buses(ONE, TWO, THREE) as (one, two, three):
            for number in range(50):
                await one.publish({THREE: b"1:%d" % number})
                await two.publish({THREE: b"2:%d" % number})
            taken = [packet or b"" for packet in await take(three, 100)]
            for sender in (b"1:", b"2:"):
                found = [packet for packet in taken if packet.startswith(sender)]
                assert found == [sender + b"%d" % number for number in range(50)]

    async def test_any_bytes_arrive_as_they_are(self, make_buses: BusMaker) -> None:
        """Packets are sealed: no byte means anything on the way."""
        packets = [b"", b"\r\n$-1\r\n\0", bytes(range(256)) * 4096]
        async with make_buses(ONE, TWO) as (one, two):
            for packet in packets:
                await one.publish({TWO: packet})
            assert await take(two, 3) == packets

    async def test_whose_inbox_nobody_listens_to_is_named(self, make_buses: BusMaker) -> None:
        """A dead worker is found by it."""
        dead = WorkerId("worker-dead")
        async with make_buses(ONE, TWO) as (one, two):
            assert list(await one.publish({dead: b"x", TWO: b"y"})) == [dead]
            assert await take(two, 1) == [b"y"]
            assert not await one.publish({})

    async def test_a_subscription_made_anew_is_told_and_goes_on(
        self, make_buses: BusMaker, resubscribe: Resubscribe
    ) -> None:
        """DESIGN section 3: then the worker compares heads."""
        async with make_buses(ONE, TWO) as (one, two):
            await one.publish({TWO: b"before"})
            assert await take(two, 1) == [b"before"]
            await resubscribe(TWO)
            assert await take(two, 1) == [None]
            assert not await one.publish({TWO: b"after"})
            assert await take(two, 1) == [b"after"]

    async def test_who_serves_a_user_is_known_to_the_others(self, make_buses: BusMaker) -> None:
        """A worker needs no packet to itself."""
        async with make_buses(ONE, TWO, THREE) as (one, two, three):
            await one.present([ANN, BOB])
            await two.present([ANN])
            assert await one.workers_of([ANN, BOB, CID]) == {ANN: [TWO]}
            assert await two.workers_of([ANN, BOB, CID]) == {ANN: [ONE], BOB: [ONE]}
            found = await three.workers_of([ANN])
            assert {user: sorted(workers) for user, workers in found.items()} == {ANN: [ONE, TWO]}

    async def test_who_serves_a_user_no_more_is_forgotten(self, make_buses: BusMaker) -> None:
        """Each for itself, and as often as it likes."""
        async with make_buses(ONE, TWO) as (one, two):
            await one.present([ANN, CID])
            await one.present([ANN])
            await one.absent([ANN])
            await one.absent([ANN, BOB])
            assert await two.workers_of([ANN, BOB, CID]) == {CID: [ONE]}
            await one.present([ANN])
            assert await two.workers_of([ANN]) == {ANN: [ONE]}

    async def test_a_dead_worker_is_taken_out_by_another(self, make_buses: BusMaker) -> None:
        """And only that one."""
        async with make_buses(ONE, TWO, THREE) as (one, two, three):
            await one.present([ANN])
            await two.present([ANN])
            await three.absent([ANN], ONE)
            assert await three.workers_of([ANN]) == {ANN: [TWO]}
