"""Moves what a crash left in journal and write-ahead logs into the files, without a server."""

from collections.abc import Callable

from trunkline.adapters.sqlite.cold import ColdFile
from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.materialise import open_materialiser
from trunkline.adapters.sqlite.recovery import check_wals
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.tables import Tables
from trunkline.errors import DataDamaged, StorageUnavailable
from trunkline.ports.inspection import StoreFault

_COMMITS_AT_ONCE = 1_000
_BROKEN = (DataDamaged, StorageUnavailable, LookupError, TypeError, ValueError, AssertionError)
"""What reading damaged files raises: a damaged value may be of any type."""


def take_over(directory: DataDirectory, settings: Settings) -> list[StoreFault]:
    """Does so in a directory that is locked and not open; blocking.

    Afterwards each database is one file that holds all. Returns what was in the way, if
    anything: then all is left as far as it came. Damaged write-ahead logs are not touched.
    """
    try:
        check_wals(directory)
    except DataDamaged as error:
        return [StoreFault(str(directory.path), error.detail)]
    parts: list[tuple[str, Callable[[], None]]] = [
        ("journal.db", lambda: _materialise(directory, settings)),
        ("cold.db", lambda: ColdFile(directory.cold).close()),
    ]
    faults = []
    for file, part in parts:
        try:
            part()
        except _BROKEN as error:
            faults.append(StoreFault(file, f"It cannot be taken over: {error}"))
    return faults


def _materialise(directory: DataDirectory, settings: Settings) -> None:
    tables = Tables.make(directory.tables, settings.tables_cache_bytes)
    try:
        watermark, _ = tables.watermark()
    finally:
        tables.close()
    journal = Journal(directory.journal, settings.journal_wal_bytes)
    try:
        last = journal.check(watermark)
        materialiser = open_materialiser(directory.path, settings)
        try:
            while watermark < last:
                watermark = materialiser.slice(min(last, watermark + _COMMITS_AT_ONCE), 0)
        finally:
            materialiser.close()
    finally:
        journal.close()
