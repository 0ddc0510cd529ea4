"""The Redis that tests talk to: the shared one under a prefix, or a private one to be killed."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from addresses import shared_redis
from certificates import Files

from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores, open_redis
from trunkline.model import WorkerId

START_SECONDS = 10.0
# A loaded machine stalls: only tests of the bounds make them short.
PATIENT = {"answer_seconds": 10.0, "read_seconds": 10.0}
HEAL = {"reconnect_seconds": 0.1, "stall_seconds": 1.0, "pause_seconds": 0.02}
SHORT_SECONDS = 0.1
FAR_MORE_SECONDS = 5.0
"""A bound is judged with room for a machine that has other things to do."""


@contextmanager
def shared_settings(**more: object) -> Iterator[Settings]:
    """Settings of the shared server with a prefix of their own; its keys are deleted after."""
    prefix = f"test-{uuid.uuid4().hex}"
    settings = Settings(nodes=(shared_redis(),), prefix=prefix, **{**PATIENT, **more})
    yield settings
    keys = keys_of(settings)
    if keys:
        with client_of(settings) as client:
            client.delete(*keys)


def client_of(settings: Settings) -> redis.Redis:
    """A plain client of the first node."""
    host, port = settings.nodes[0].rsplit(":", 1)
    return redis.Redis(host=host, port=int(port), socket_timeout=5)


def keys_of(settings: Settings) -> list[bytes]:
    """All keys there are of these settings."""
    with client_of(settings) as client:
        return list(client.scan_iter(match=f"{settings.prefix}:*", count=1000))


def opened(settings: Settings, worker: str | None = None) -> RedisStores:
    """The stores of a worker that has this name, or a new one."""
    name = WorkerId(worker or uuid.uuid4().hex)
    return open_redis(settings, name, SystemClock(), random.Random().random)


def missing(reason: str) -> None:
    """Skips the test; in continuous integration (`CI=true`) it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class PrivateRedis:
    """A Redis process of the test's own; where it has a snapshot it starts with it."""

    def __init__(
        self, folder: Path, *options: str, tls: bool = False, client: Files | None = None
    ) -> None:
        if shutil.which("redis-server") is None:
            missing("redis-server is not installed: `make cluster-up` installs it")
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.cluster_port = 0
        self.tls = tls
        self.certificate = client
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        shown = self.certificate
        return redis.Redis(
            port=self.port, socket_timeout=5, ssl=self.tls, ssl_cert_reqs="none",
            ssl_certfile=shown and str(shown.certificate), ssl_keyfile=shown and str(shown.key),
        )  # fmt: skip

    def start(self) -> None:
        options = [option.format(port=self.port) for option in self.options]
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
             "--dir", str(self.folder), *options],
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
def private_redis(
    folder: Path, *options: str, tls: bool = False, client: Files | None = None
) -> Iterator[PrivateRedis]:
    """A started server, killed after; `{port}` in an option stands for its port.

    `client`: what the test itself shows to a server that wants a certificate.
    """
    server = PrivateRedis(folder, *options, tls=tls, client=client)
    try:
        server.start()
        yield server
    finally:
        server.kill()


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Waits for a condition; fails in plain words when it does not come."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


def patient(server: PrivateRedis, **more: object) -> Settings:
    """Settings of a private server whose answers may take their time."""
    return Settings(nodes=(server.address,), **{**PATIENT, **HEAL, **more})


def hasty(server: PrivateRedis, **more: object) -> Settings:
    """The same with the bounds short."""
    short = {"answer_seconds": SHORT_SECONDS, "read_seconds": SHORT_SECONDS}
    return Settings(nodes=(server.address,), **{**short, **HEAL, **more})
