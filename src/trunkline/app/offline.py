"""Composition of what works on a data directory at rest: the audit and the export."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from trunkline import sqlite
from trunkline.adapters.keyring import KeyringSealer
from trunkline.adapters.keyring.settings import IN_DIRECTORY
from trunkline.adapters.keyring.settings import Settings as KeyringSettings
from trunkline.adapters.memory.clock import SystemClock
from trunkline.adapters.sqlite.directory import read_format
from trunkline.adapters.sqlite.inspect import Inspection
from trunkline.app.keys import SENTINEL_FILE, open_sealer
from trunkline.core.auditing import AuditReport, Counted, Findings
from trunkline.errors import DataDamaged, DataDirInvalid, KeyringMissing, KeyringWrong
from trunkline.services.audit import Audit
from trunkline.services.export import Export, Line

_PAGE_LINES: Final = 512


def audit_directory(
    path: Path,
    keyring: KeyringSettings = IN_DIRECTORY,
    *,
    on_conversation: Callable[[Counted], None] | None = None,
) -> AuditReport:
    """Checks all that a data directory holds; no server may have it open.

    What a crash left in the journal is taken over first, as a start would. Whatever is
    wrong with files, keyring or records is a finding. Raises only where nothing could be
    looked at: `DataDirLocked`, `DataDirNewer`, `DataDirInvalid`, `StorageFull`.

    Args:
        on_conversation: is told the counts so far after each conversation.
    """
    findings = Findings()
    if not is_made(path):
        return AuditReport(Counted(), (), 0, 0.0)
    sealer = _sealer_of(path, keyring, findings)
    try:
        with Inspection(path) as inspection:
            audit = Audit(
                inspection.hot,
                inspection.cold,
                sealer,
                SystemClock(),
                findings=findings,
                on_conversation=on_conversation,
            )
            report = asyncio.run(audit.run())
            return msgspec.structs.replace(report, sqlite=sqlite.library_version())
    except DataDamaged as error:
        findings.add("file_damaged", str(path), error.detail)
        return AuditReport(Counted(), tuple(findings.kept), findings.count, 0.0)


def export_conversation(
    path: Path, conversation: str, keyring: KeyringSettings = IN_DIRECTORY
) -> Iterator[Line]:
    """The entries of a conversation, 1..head, as objects for JSON lines.

    Args:
        conversation: its id, or a name that only one conversation has.

    Raises `NotMember` if there is none, `InvalidInput` if the name is not unique, and
    besides `DataDirLocked`, `DataDirInvalid`, `DataDirNewer`, `KeyringMissing`,
    `KeyringWrong`, `ConversationShredded`, `DataDamaged`: never is an entry left out.
    """
    if not is_made(path):
        raise DataDirInvalid(f"{path} holds no conversation yet.")
    sealer = open_sealer(path, keyring)
    with Inspection(path) as inspection, asyncio.Runner() as runner:
        for fault in inspection.left_over:
            raise DataDamaged(f"{fault.where}: {fault.what}")
        export = Export(inspection.hot, inspection.cold, sealer)
        lines = export.lines(runner.run(export.find(conversation)))
        while page := runner.run(_page(lines)):
            yield from page


def is_made(path: Path) -> bool:
    """Whether there is anything to look at: a start that was cut off may have left nothing.

    Raises `DataDirInvalid` if there is no such directory, or it is none of ours.
    """
    if not path.exists():
        raise DataDirInvalid(f"There is no data directory {path}.")
    begun = (path / SENTINEL_FILE).exists() and (path / "tables.db").exists()
    return read_format(path) is not None or begun


async def _page(lines: AsyncIterator[Line]) -> list[Line]:
    """The next lines, or none at the end."""
    page: list[Line] = []
    async for line in lines:
        page.append(line)
        if len(page) == _PAGE_LINES:
            break
    return page


def _sealer_of(path: Path, keyring: KeyringSettings, findings: Findings) -> KeyringSealer | None:
    try:
        return open_sealer(path, keyring)
    except KeyringMissing as error:
        findings.add("keyring_missing", str(path), error.detail)
    except KeyringWrong as error:
        findings.add("keyring_wrong", str(path), error.detail)
    return None
