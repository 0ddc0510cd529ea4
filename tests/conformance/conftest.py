"""What all conformance tests share: assertions that explain themselves, and a writer."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("trunkline.testing.conformance")

from trunkline.adapters.keyring import open_keyring  # noqa: E402
from trunkline.testing.conformance import Writer  # noqa: E402


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))
