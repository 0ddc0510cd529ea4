"""Finds the server that a replay drives: a running one, or one of its own that ends with it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.adapters.jwt.tokens import TOKENS_FILE
from trunkline.adapters.node.listening import find_listening
from trunkline.errors import Unreachable
from trunkline.model import UserId
from trunkline.replay.chatfile import ChatFile
from trunkline.replay.result import Result
from trunkline.replay.run import OWN_SERVER_SETTINGS, Plan, Progress, Replay, Target
from trunkline.replay.scratch import scratch_directory
from trunkline.replay.server_process import ServerProcess

_TOKEN_SECONDS: Final = 24 * 3_600


def minting(keys: TokenKeys) -> Callable[[UserId], str]:
    """Returns what makes a user's token, good for a day."""

    def token_of(user: UserId) -> str:
        now_ms = time.time_ns() // 1_000_000
        return mint(keys, user, now_ms=now_ms, ttl_seconds=_TOKEN_SECONDS)

    return token_of


async def drive_running(
    chat: ChatFile,
    plan: Plan,
    random: Random,
    progress: Progress,
    *,
    url: str,
    data: Path | None,
    tokens: Path | None,
) -> Result:
    """Replays against a server that runs already.

    Users' tokens are signed with the keys of `tokens`, or of the server's directory `data`.
    """
    keys_file = tokens if tokens is not None else (data or Path()) / TOKENS_FILE
    target = Target(url, _ops_urls(data), own=False)
    token_of = minting(TokenKeys.load(keys_file))
    return await Replay(chat, target, token_of, plan, random, progress).run()


async def drive_own(
    chat_of: Callable[[], ChatFile],
    plan: Plan,
    random: Random,
    progress: Progress,
    *,
    data: Path | None,
    config: Path | None,
) -> Result:
    """Replays against a server of its own on `data` (None: a temporary directory).

    `chat_of` reads the file, while the server starts.
    """
    async with AsyncExitStack() as stack:
        if data is None:
            data = stack.enter_context(scratch_directory())
        server = ServerProcess(data, config=config, settings=OWN_SERVER_SETTINGS)
        stack.push_async_callback(server.stop)
        chat = chat_of()
        listening = await server.listening()
        target = Target(listening.url, listening.ops_urls, own=True)
        token_of = minting(TokenKeys.load(data / TOKENS_FILE))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(server.watch())
            result = await Replay(chat, target, token_of, plan, random, progress).run()
            watching.cancel()
        return result


def _ops_urls(data: Path | None) -> Sequence[str]:
    if data is None:
        return ()
    try:
        return find_listening(data).ops_urls
    except Unreachable:
        return ()
