"""Composition root of the embedded server: one process, one data directory."""

import secrets
from collections.abc import Callable

import msgspec

from trunkline import sqlite
from trunkline.adapters.jwt import JwtAuthenticator
from trunkline.adapters.memory.cached import MemoryCachedTier
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.node.listening import Listening, announce, withdraw
from trunkline.adapters.sqlite import open_embedded
from trunkline.app.keys import bind_directory, open_sealer, open_token_keys
from trunkline.app.serving import run_server, tune_interpreter
from trunkline.config import Config
from trunkline.services.backbone import Stores


async def serve(config: Config, *, on_listening: Callable[[Listening], None]) -> None:
    """Runs the embedded server until SIGTERM or SIGINT, then drains it.

    Raises the errors of a start that is not possible: `DataDirLocked`, `DataDirNewer`,
    `DataDamaged`, `KeyringMissing`, `KeyringWrong`, `AddressInUse` and the like.
    """
    tune_interpreter()
    clock = SystemClock()
    data = config.data_path
    sealer = open_sealer(data, config.keyring)

    def listens(listening: Listening) -> None:
        listening = msgspec.structs.replace(listening, sqlite=sqlite.library_version())
        announce(data, listening)
        on_listening(listening)

    async with open_embedded(data, config.sqlite, clock) as opened:
        await bind_directory(data, opened, sealer)
        keys = open_token_keys(data, create=True)
        cached = MemoryCachedTier(clock, config.cached)
        stores = Stores(
            opened.hot,
            opened.tasks,
            opened.cold,
            cached,
            sealer,
            JwtAuthenticator(keys, clock),
            clock,
            secrets.randbits,
            identity=opened.identity,
            readings=[*cached.readings(), *opened.readings()],
            head_changes=opened.hot.head_changes,
            health=opened.health(),
        )
        await run_server(
            config, stores, archives=True,
            on_listening=listens, on_draining=lambda: withdraw(data),
        )  # fmt: skip
