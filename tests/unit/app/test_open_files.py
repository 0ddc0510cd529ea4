"""Connections fit into the limit of open files, or fewer are taken, or the start is refused."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from trunkline.app.open_files import OWN_FILES, RESERVED_FILES, fit_connections
from trunkline.errors import ConfigInvalid
from trunkline.services.settings import ServiceSettings


def test_a_limit_with_room_changes_nothing() -> None:
    settings = ServiceSettings(connections=1_000)
    with capture_logs() as logs:
        assert fit_connections(settings, 1_000 + OWN_FILES) is settings
    assert logs == []


def test_a_low_limit_lowers_the_connections_and_says_so() -> None:
    with capture_logs() as logs:
        fitted = fit_connections(ServiceSettings(connections=20_000), 256 - RESERVED_FILES)
    assert fitted.connections == 256 - RESERVED_FILES - OWN_FILES
    assert [(log["event"], log["connections"]) for log in logs] == [
        ("fewer_connections", fitted.connections)
    ]


def test_a_limit_without_room_refuses_the_start_and_names_the_way_out() -> None:
    with pytest.raises(ConfigInvalid, match="ulimit -n"):
        fit_connections(ServiceSettings(), 64)
