"""World of one seed: a server, users with their devices, a network, and whatever goes wrong.

After some time of trouble everything is mended; then every endpoint must become complete
within a bounded time, and what was seen on the way is judged.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.client import Client
from trunkline.model import EndpointId, UserId, WorkerId
from trunkline.testing.clock import SimulatedClock
from trunkline.testing.completeness import judge_copies, lacking
from trunkline.testing.device import Crowd, Device
from trunkline.testing.history import Broken, History, judge_cold_metadata, read_history
from trunkline.testing.loop import SimulatedLoop
from trunkline.testing.network import HALF_OPEN_SECONDS, Network
from trunkline.testing.oracle import Line, Oracle
from trunkline.testing.server import SimulatedServer
from trunkline.wire.encoding import Encoding
from trunkline.wire.frames import Add, Create, Leave, Remove, Rename, Send

USERS: Final = tuple(
    map(UserId, ("ann", "Ann", "josé", "jose\u0301", "ann ", "\U0001d537oe", "\uffee", "1"))
)
"""Ids that a careless store holds equal, and two whose order differs in UTF-8 and UTF-16."""
WORKERS: Final = (1, 1, 2, 2, 3)
TROUBLE_SECONDS: Final = (6.0, 18.0)
HEALED_SECONDS: Final = 240.0
"""A half-open connection, a request on it, and the longest pause before the next try."""
SILENCES: Final = 4
SILENT_SECONDS: Final = 12.0
"""A beat, a comparison, a sync, a pull; much less than the sweep takes."""
_LAST_ACTS: Final = ("say", "say_in_group", "add", "add", "remove", "mark", "mark")
_ACT_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 2.0
_DOWN_SECONDS: Final = 1.5
_SYNC_SECONDS: Final = (0.002, 0.01, 0.05, 0.2)
_JUMP_MS: Final = 3_600_000

NO_WORKER: Final = WorkerId("")

ServerType = type[SimulatedServer]


class World:
    """Everything that one seed makes.

    Args:
        seed: decides it all.
        server_type: a server with a broken part, where a test wants one.
        client_type: a client with a broken part.
        workers: how many share the stores; None: as the seed says.
    """

    def __init__(
        self,
        seed: int,
        loop: SimulatedLoop,
        *,
        server_type: ServerType = SimulatedServer,
        client_type: type[Client] = Client,
        workers: int | None = None,
    ) -> None:
        self.seed = seed
        self.loop = loop
        self.oracle = Oracle()
        self.log: list[str] = []
        self._random = random.Random(f"world {seed}")
        self._server_type = server_type
        self._client_type = client_type
        self._clock = SimulatedClock(loop, skew_ms=self._random.randint(-_JUMP_MS, _JUMP_MS))
        self._network = Network(loop, seed, self._observe)
        self._users = list(USERS[: self._random.randint(3, len(USERS))])
        self._crowd = Crowd(self._users)
        self._devices = [
            self._make_device(user, number)
            for user in self._users
            for number in range(self._random.randint(1, 2))
        ]
        self._by_name = {f"{d.user}/{d.endpoint}": d for d in self._devices}
        self._server: SimulatedServer
        self.workers = (
            random.Random(f"workers {seed}").choice(WORKERS) if workers is None else workers
        )
        self._troubles: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (4, self._server_crashes),
            (2, self._server_restarts),
            (2, self._disk_is_full),
            (2, self._disk_fails),
            (2, self._cold_is_down),
            (6, self._connection_tears),
            (3, self._endpoint_is_cut_off),
            (3, self._device_loses_power),
            (1, self._network_is_slow),
            (1, self._clock_jumps),
        )
        if self.workers > 1:
            self._troubles += (
                (4, self._worker_crashes),
                (4, self._packets_are_lost),
                (4, self._next_packets_are_lost),
                (3, self._subscription_is_cut),
                (3, self._shared_tier_is_down),
                (3, self._worker_is_shut_out),
                (1, self._shared_tier_is_wiped),
            )

    async def run(self) -> History:
        """Trouble, healing, judgement; raises `Broken`. Returns what really happened."""
        async with asyncio.TaskGroup() as group:
            self._server = self._server_type(
                self.seed, self._network, self._clock, group, workers=self.workers
            )
            self._server.disk.sync_seconds = self._random.choice(_SYNC_SECONDS)
            try:
                history = await self._live(group)
            finally:
                await self._server.stop()
        for device in self._devices:
            await judge_copies(device, history, self.oracle)
        return history

    async def _live(self, group: asyncio.TaskGroup) -> History:
        self._server.boot()
        lives = [
            group.create_task(device.live(self._random.choice((0.0, 0.0, 3.0, 9.0))))
            for device in self._devices
        ]
        await self._trouble()
        self._note("healed")
        self._heal()
        lack = await self._lack_within(HEALED_SECONDS)
        if self.workers > 1 and not lack:
            lack = await self._lack_after_silence()
        for life in lives:
            life.cancel()
        await asyncio.wait(lives)
        history = await self._history()
        self.oracle.judge(history)
        if lack:
            raise Broken(f"not complete in time: {'; '.join(lack[:5])}")
        self._note("complete")
        await self._archive_all()
        await judge_cold_metadata(history, self._server.hot, self._server.inner_cold)
        return await self._history()

    def fingerprint(self, history: History) -> str:
        """A hash over all that happened: the same seed gives the same."""
        told = hashlib.blake2b(digest_size=8)
        for line in self.log:
            told.update(line.encode())
        for conversation in history.values():
            told.update(repr(conversation.entries).encode())
        told.update(f"{self.oracle.counts} {self.loop.steps} {self.loop.time()}".encode())
        return told.hexdigest()

    # --- what it is made of -----------------------------------------------------------------

    def _make_device(self, user: UserId, number: int) -> Device:
        endpoint = EndpointId(f"device {number}")
        name = f"{user}/{endpoint}"
        clock = SimulatedClock(self.loop, skew_ms=self._random.randint(-_JUMP_MS, _JUMP_MS))
        return Device(
            user,
            endpoint,
            self._crowd,
            self._network.dialer(name),
            clock,
            self.oracle,
            f"device {self.seed} {name}",
            self._client_type,
        )

    def _observe(self, endpoint: str, encoding: Encoding) -> Line:
        return self.oracle.line(self._by_name[endpoint].user, encoding)

    def _note(self, what: str) -> None:
        self.log.append(f"{self.loop.time():9.3f} {what}")

    # --- trouble ------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        self._network.arrives_twice = self._is_repeated
        until = self.loop.time() + self._random.uniform(*TROUBLE_SECONDS)
        weights = [weight for weight, _ in self._troubles]
        kinds = [kind for _, kind in self._troubles]
        async with asyncio.TaskGroup() as group:
            while self.loop.time() < until:
                await asyncio.sleep(self._random.expovariate(1 / 0.8))
                (kind,) = self._random.choices(kinds, weights)
                if kind in (self._server_crashes, self._server_restarts):
                    await kind()  # one at a time
                else:
                    group.create_task(self._happen(kind))

    async def _happen(self, kind: Callable[[], Awaitable[None]]) -> None:
        await kind()

    def _heal(self) -> None:
        self._network.heal()
        self._server.hub.heal()
        for device in self._devices:
            device.calm = True

    def _is_repeated(self, data: bytes) -> bool:
        """Some writing frames arrive twice, as if the client had resent them."""
        if self._random.random() > 0.1:
            return False
        for tag in (Send, Create, Add, Remove, Leave, Rename):
            if f"{tag.__struct_config__.tag}".encode() in data[:12]:
                return True
        return False

    async def _server_crashes(self) -> None:
        forgotten = await self._server.crash()
        self._note(f"the server crashed, {forgotten} records are gone")
        await self._boot_again()

    async def _server_restarts(self) -> None:
        self._note("the server restarts")
        await self._server.stop()
        await self._boot_again()

    async def _boot_again(self) -> None:
        await asyncio.sleep(self._random.expovariate(1 / _DOWN_SECONDS))
        self._server.boot()
        self._note("the server is up")

    async def _worker_crashes(self) -> None:
        server = self._server
        if len(server.workers) < 2:
            return
        boots = server.boots
        self._note("a worker is killed")
        await server.worker_crashes()
        await asyncio.sleep(self._random.expovariate(1 / _DOWN_SECONDS))
        if server.is_on and server.boots == boots:
            server.start_worker()
            self._note("another worker takes its place")

    async def _packets_are_lost(self) -> None:
        hub = self._server.hub
        self._note("packets between workers are lost")
        hub.loses = self._random.uniform(0.05, 1.0)
        hub.delay_seconds = self._random.choice((0.0, 0.01, 0.5))
        await asyncio.sleep(self._random.uniform(0.2, 5.0))
        hub.loses = 0.0

    async def _next_packets_are_lost(self) -> None:
        self._server.hub.lose_next = self._random.randint(1, 3)

    async def _subscription_is_cut(self) -> None:
        hub, worker = self._server.hub, self._random.choice(self._server.workers or [NO_WORKER])
        self._note(f"the subscription of {worker} breaks")
        hub.cut(worker)
        await asyncio.sleep(self._random.uniform(0.1, 4.0))
        hub.mend(worker)

    async def _shared_tier_is_down(self) -> None:
        hub = self._server.hub
        self._note("the tier between the workers is down")
        hub.is_down = True
        await asyncio.sleep(self._random.uniform(0.2, 4.0))
        hub.is_down = False
        self._note("the tier between the workers is up")

    async def _worker_is_shut_out(self) -> None:
        hub, worker = self._server.hub, self._random.choice(self._server.workers or [NO_WORKER])
        self._note(f"the tier between the workers does not answer {worker}")
        hub.shuts_out.add(worker)
        await asyncio.sleep(self._random.uniform(0.2, 4.0))
        hub.let_in(worker)

    async def _shared_tier_is_wiped(self) -> None:
        self._note("the tier between the workers is wiped")
        self._server.hub.wipe()

    async def _disk_is_full(self) -> None:
        self._note("the disk is full")
        self._server.disk.full = True
        await asyncio.sleep(self._random.uniform(0.2, 4.0))
        self._server.disk.full = False
        self._note("the disk has room")

    async def _disk_fails(self) -> None:
        self._note("the disk fails now and then")
        self._server.disk.sync_fails = self._random.uniform(0.1, 1.0)
        await asyncio.sleep(self._random.uniform(0.2, 3.0))
        self._server.disk.sync_fails = 0.0
        self._note("the disk works")

    async def _cold_is_down(self) -> None:
        self._note("the cold tier is down")
        self._server.cold_is_down = True
        await asyncio.sleep(self._random.uniform(0.2, 4.0))
        self._server.cold_is_down = False
        self._note("the cold tier is up")

    async def _connection_tears(self) -> None:
        wires = self._network.wires()
        if wires:
            wire = self._random.choice(wires)
            client, server = (self._random.random() < 0.6 for _ in range(2))
            wire.tear(client_learns=client, server_learns=server)
            self._note(f"{wire.name} tears, client learns {client}, server learns {server}")

    async def _endpoint_is_cut_off(self) -> None:
        name = self._random.choice(list(self._by_name))
        self._note(f"{name!r} is cut off")
        self._network.cut_off.add(name)
        self._network.cut(name)
        await asyncio.sleep(self._random.uniform(0.5, 8.0))
        self._network.cut_off.discard(name)

    async def _device_loses_power(self) -> None:
        name = self._random.choice(list(self._by_name))
        self._note(f"{name!r} loses power")
        self._network.cut(name)
        self._by_name[name].power_cut()

    async def _network_is_slow(self) -> None:
        self._note("the network is slow")
        self._network.spikes = 0.2
        await asyncio.sleep(self._random.uniform(0.5, 4.0))
        self._network.spikes = 0.0

    async def _clock_jumps(self) -> None:
        by_ms = self._random.randint(-_JUMP_MS, _JUMP_MS)
        self._note(f"the server's clock jumps by {by_ms} ms")
        self._clock.jump(by_ms)

    # --- the end --------------------------------------------------------------------------------

    async def _lack_after_silence(self) -> list[str]:
        """The same, after something was lost between workers and nothing came behind it."""
        # Whose connection is half-open since before learns nothing of what is to be repaired.
        await asyncio.sleep(HALF_OPEN_SECONDS[1])
        hub = self._server.hub
        for _ in range(SILENCES):
            name = self._random.choice(_LAST_ACTS)
            fault = self._random.choice(("packets", "packets", "subscription", "tier"))
            self._note(f"{name}, then silence; lost: {fault}")
            if fault == "packets":
                hub.loses = 1.0
            elif fault == "subscription":
                for worker in self._server.workers:
                    hub.cut(worker)
            else:
                hub.is_down = True
            async with asyncio.timeout(_ACT_SECONDS):
                await self._random.choice(self._devices).act(name)
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
            hub.heal()
            lack = await self._lack_within(SILENT_SECONDS)
            if lack:
                return lack
        return []

    async def _lack_within(self, seconds: float) -> list[str]:
        """Liveness: what endpoints lack after a bounded time; nothing, and at once, is right."""
        deadline = self.loop.time() + seconds
        while True:
            lack = [text for d in self._devices for text in await lacking(d, self._server.hot)]
            if self.oracle.broken:
                raise self.oracle.broken[0]
            if not lack or self.loop.time() > deadline:
                return lack
            await asyncio.sleep(_CHECK_SECONDS)

    async def _history(self) -> History:
        server = self._server
        return await read_history(self._users, server.hot, server.inner_cold, server.sealer)

    async def _archive_all(self) -> None:
        deadline = self.loop.time() + HEALED_SECONDS
        while waiting := await self._server.waiting_for_archive():
            if self.loop.time() > deadline:
                raise Broken(f"{waiting} conversations were not archived.")
            await asyncio.sleep(_CHECK_SECONDS)
