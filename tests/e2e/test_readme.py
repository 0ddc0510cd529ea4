"""The README's echo bot, run as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path

from trunkline.adapters.jwt import TokenKeys, mint
from trunkline.client import Client
from trunkline.model import UserId
from trunkline.replay.server_metrics import read_metrics
from trunkline.replay.server_process import ServerProcess

README = Path(__file__).parents[2] / "README.md"
PATIENCE_SECONDS = 30.0
SYNCS = "trunkline_syncs_total"
"""Until the bot has synced for the first time, what is sent to it is not news."""


async def test_the_echo_bot_of_the_readme_answers(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    data = tmp_path / "chat"
    server = ServerProcess(data)
    listening = await server.listening()
    url = listening.url
    keys = TokenKeys.load(data / "tokens.json")

    def token(user: str) -> str:
        return mint(keys, UserId(user), now_ms=time.time_ns() // 1_000_000, ttl_seconds=600)

    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code.replace("ws://127.0.0.1:8480/v1", url),
        cwd=tmp_path, env={**os.environ, "TOKEN": token("echo")},
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ((await read_metrics(listening.ops_url)) or {}).get(SYNCS):
                await asyncio.sleep(0.05)
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            Client(url, token=token("alice"), user="alice", endpoint="phone") as alice,
        ):
            await alice.send_to("echo", "hello")
            async for message in alice.messages(from_start=True):
                if message.sender == "echo":
                    assert message.body == "echo: hello"
                    break
    finally:
        bot.kill()
        await bot.wait()
        await server.stop()
