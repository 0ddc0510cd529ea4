"""What all conformance tests share: assertions that explain themselves, and a writer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("trunkline.testing.conformance")

from trunkline.adapters.keyring import open_keyring  # noqa: E402
from trunkline.testing.conformance import Writer  # noqa: E402


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))
