"""Power cuts are a campaign of their own: they need root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the power cuts out unless they are asked for."""
    if collection_path.name == "test_power_cut.py" and not config.getoption("--power-cuts"):
        return True
    return None
