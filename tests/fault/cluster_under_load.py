"""A cluster whose users write, read and pull without pause while its parts fail; and the verdict.

Two supervised workers and an archiver, as an operator starts them. Six users have two
endpoints each; one more of each user pulls, over and over, what was acknowledged to them.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cluster_process import UNLIMITED, ClusterProcess, Tiers, cluster_process, settings_file
from command_line import run
from crowd import USERS, Crowd, client_of
from puller import Puller

from trunkline.adapters.jwt import TokenKeys

SERVICES = {**UNLIMITED, "newest_group": 40, "newest_single": 10}
SENDERS = 3
PAUSE_SECONDS = 0.02
ANEW = 10
"""So often must every user be answered anew before a fault counts as over."""
OVER_SECONDS = 60.0
COMPLETE_SECONDS = 10.0
"""So long after a silence began every endpoint must have everything."""
FULL_ROUNDS = 100


class Strikes:
    """`strikes(30)`: how often a campaign strikes that strikes 30 times in 100 rounds."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, full: int, *, least: int = 1) -> int:
        return max(least, math.ceil(full * self.rounds / FULL_ROUNDS))


class ClusterUnderLoad:
    """Between `async with` and its end all users write; `verdict` closes it and judges.

    Attributes:
        crowd: the users.
        cluster: the processes, once entered.
        config: the settings file.
    """

    def __init__(self, folder: Path, tiers: Tiers) -> None:
        self.config = settings_file(folder, tiers, SERVICES)
        self.crowd = Crowd(folder, readers=("tablet",))
        self.cluster: ClusterProcess
        self.pullers: list[Puller] = []
        self._folder = folder
        self._stack = AsyncExitStack()
        self._load = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._began = time.monotonic()

    async def __aenter__(self) -> Self:
        # In threads: a proxy that the cluster goes through may live on this loop.
        done = await asyncio.to_thread(run, "migrate", "--config", self.config)
        assert done.returncode == 0, done.stderr
        log = self._stack.enter_context((self._folder / "cluster.log").open("w"))
        self.cluster = await asyncio.to_thread(self._start, log)
        self._stack.push_async_callback(self._stop)
        await self._stack.enter_async_context(self.crowd)
        await self.crowd.connect(self.cluster.told["url"], self.keys)
        url = self.cluster.told["url"]
        self.pullers = [
            Puller(url, self.keys, writer, random.Random(writer.client.user))
            for writer in self.crowd.writers
        ]
        await self._load.__aenter__()
        self.write()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for task in self._tasks:
                task.cancel()
            await self._load.__aexit__(kind, error, trace)
        finally:
            await self._stack.aclose()

    @property
    def keys(self) -> TokenKeys:
        """What signs tokens."""
        return TokenKeys.load(self._folder / "node" / "tokens.json")

    async def goes_on(self, *, within_seconds: float = OVER_SECONDS, pulls: bool = True) -> None:
        """Waits until every user was acknowledged anew, several times, and pulled again."""
        parts: list[Callable[[], int]] = [lambda w=w: len(w.acked) for w in self.crowd.writers]
        if pulls:
            parts += [lambda p=p: p.answers for p in self.pullers]
        before = [part() for part in parts]
        gained = [0] * len(parts)
        try:
            async with asyncio.timeout(within_seconds):
                while min(gained) < ANEW:
                    await asyncio.sleep(0.02)
                    gained = [part() - old for part, old in zip(parts, before, strict=True)]
        except TimeoutError:
            raise AssertionError(f"not over after {within_seconds} s: {gained}") from None

    def write(self) -> None:
        """Everybody writes and pulls without pause, until it is to be quiet."""
        work = [w.write_side_by_side(SENDERS, PAUSE_SECONDS) for w in self.crowd.writers]
        work += [puller.run() for puller in self.pullers]
        self._tasks = [self._load.create_task(part) for part in work]

    async def quiet(self) -> None:
        """Nobody writes or pulls any more; what was under way is answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.wait_sent() for client in self.crowd.clients))

    async def verdict(self) -> str:
        """Everybody is complete, everything acknowledged stands, the audit finds nothing.

        Returns a line with the figures.
        """
        seconds = time.monotonic() - self._began
        await self.quiet()
        await self.crowd.converge()
        await self.judge()
        await self.crowd.__aexit__(None, None, None)
        await self._stop()
        report = await asyncio.to_thread(self._audit)
        refused = sum((puller.refused for puller in self.pullers), Counter[str]())
        return (
            f"{self.crowd.acked} acked in {seconds:.0f} s, "
            f"{sum(puller.answers for puller in self.pullers)} pulled meanwhile, "
            f"{refused.total()} pulls refused {sorted(refused)}, "
            f"{report['entries']} entries audited"
        )

    def _audit(self) -> dict[str, Any]:
        """What `trunkline audit` says; it must find nothing."""
        done = run("audit", "--config", self.config, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    async def judge(self) -> None:
        """A new endpoint of every user pulls everything: whole, as acknowledged, and equal to
        the others'. All is to be quiet.
        """
        for user in USERS:
            await self._judge(user)

    async def _judge(self, user: str) -> None:
        phone = next(w.client for w in self.crowd.writers if w.client.user == user)
        fresh = client_of(self.cluster.told["url"], self.keys, user, "fresh")
        async with fresh, asyncio.timeout(OVER_SECONDS):
            await fresh.wait_synced()
            known = {info.conversation for info in fresh.conversations()}
            assert known == {info.conversation for info in phone.conversations()}
            for conversation in known:
                messages = await fresh.history(conversation)
                assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
                assert fresh.proof(conversation) == phone.proof(conversation), "I14"
                stored = {int(message.seq): message.body for message in messages}
                self.crowd.ledger.check(conversation, stored)

    def _start(self, log: IO[str]) -> ClusterProcess:
        return self._stack.enter_context(cluster_process(self.config, log))

    async def _stop(self) -> None:
        if self.cluster.process.poll() is None:
            await asyncio.to_thread(self.cluster.stop)
