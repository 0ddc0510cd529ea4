"""The Redis that tests talk to: the shared one under a prefix, or a private one to be killed."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis

from trunkline.adapters.redis import RedisStores, Settings, open_redis
from trunkline.model import WorkerId

ADDRESS = os.environ.get("TRUNKLINE_TEST_REDIS", "127.0.0.1:26379")
START_SECONDS = 10.0


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


@functools.cache
def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        return bool(redis.Redis(host=host, port=int(port), socket_timeout=2).ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def missing(reason: str) -> None:
    """A server that is not there is a skip on a laptop and a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def shared_settings(**more: object) -> Iterator[Settings]:
    """Settings of the shared server with a prefix of their own; its keys are deleted after."""
    if not _answers(ADDRESS):
        missing(f"no Redis at {ADDRESS}: `deploy/local/redis.sh up`, or set TRUNKLINE_TEST_REDIS")
    prefix = f"test-{uuid.uuid4().hex}"
    # A loaded machine stalls: only tests of the bounds make them short.
    bounds = {"answer_seconds": 10.0, "read_seconds": 10.0}
    yield Settings(nodes=(ADDRESS,), prefix=prefix, **{**bounds, **more})
    host, port = ADDRESS.rsplit(":", 1)
    with redis.Redis(host=host, port=int(port)) as client:
        keys = list(client.scan_iter(match=f"{prefix}:*", count=1000))
        if keys:
            client.delete(*keys)


def opened(settings: Settings, worker: str | None = None) -> RedisStores:
    """The stores of a worker that has this name, or a new one."""
    name = WorkerId(worker or uuid.uuid4().hex)
    return open_redis(settings, name, SystemClock(), random.Random().random)


class PrivateRedis:
    """A Redis process of the test's own; where it has a snapshot it starts with it."""

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("redis-server") is None:
            missing("redis-server is not installed: apt install redis-server")
        self.folder = folder
        self.options = options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
             "--dir", str(self.folder), *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                with self.client() as client:
                    client.ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"redis-server on port {self.port} does not start")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def private_redis(folder: Path, *options: str) -> Iterator[PrivateRedis]:
    """A started server, killed after."""
    server = PrivateRedis(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Fails in plain words when the body takes too long."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
