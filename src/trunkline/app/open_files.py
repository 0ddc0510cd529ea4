"""How many connections the limit of open files has room for: each is one, and some are kept."""

import resource
from typing import Final

import msgspec
import structlog

from trunkline.errors import ConfigInvalid
from trunkline.services.settings import ServiceSettings

RESERVED_FILES: Final = 64
"""Never taken by connections: for files, child processes, the tiers, the operators' listener."""
OWN_FILES: Final = 64
"""Open without any connection, and of those who are told that there is no room."""
_NO_LIMIT: Final = 1 << 30
_log = structlog.get_logger("trunkline.app")


def most_files() -> int:
    """The descriptor from which on no connection is accepted, by this process's limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (_NO_LIMIT if soft == resource.RLIM_INFINITY else soft) - RESERVED_FILES


def fit_connections(settings: ServiceSettings, most: int) -> ServiceSettings:
    """The settings with no more connections than there is room for below descriptor `most`.

    Raises `ConfigInvalid` where there is room for none.
    """
    room = most - OWN_FILES
    if room < 1:
        raise ConfigInvalid(
            f"The limit of open files, {most + RESERVED_FILES}, leaves no room for connections: "
            f"raise it (ulimit -n) above {RESERVED_FILES + OWN_FILES}."
        )
    if settings.connections <= room:
        return settings
    _log.warning(
        "fewer_connections",
        connections=room,
        set=settings.connections,
        advice="The limit of open files (ulimit -n) has no room for more: raise it, or lower "
        "services.connections.",
    )
    return msgspec.structs.replace(settings, connections=room)
