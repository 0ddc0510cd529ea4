"""kill -9 of the server at random moments under load: what was acknowledged is there (I1 to I6).

Three rounds in CI, `make fault` for more. Every round goes on in the same directory, and
the clients live through all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from under_load import UnderLoad

from trunkline.replay.server_process import ServerProcess


@pytest.mark.timeout(3600)
async def test_what_was_acknowledged_survives_kill_9_under_load(
    tmp_path: Path, rounds: int
) -> None:
    """Given writers without pause, when the server is killed and started again, then every
    acknowledged message stands at its seq, the audit is clean, and all copies are equal."""
    async with UnderLoad(tmp_path / "data", tmp_path, rounds) as load:
        for _ in range(rounds):
            await load.round(ServerProcess.kill)
        await load.converge()
    await load.check()
