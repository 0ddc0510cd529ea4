"""Opens the files of a data directory: checks them, and reads what the journal alone holds."""

from trunkline.adapters.sqlite.directory import DataDirectory
from trunkline.adapters.sqlite.journal import Journal
from trunkline.adapters.sqlite.records import Archived, Commit, Trimmed, Written
from trunkline.adapters.sqlite.settings import Settings
from trunkline.adapters.sqlite.state import Slot, State
from trunkline.adapters.sqlite.tables import Tables
from trunkline.adapters.sqlite.wal import check_wal
from trunkline.core.appending import sent_markers
from trunkline.errors import DataDamaged
from trunkline.model import ConversationKey


def check_wals(directory: DataDirectory) -> None:
    """Refuses a damaged WAL before SQLite would quietly cut it at the damage.

    What may be the trace of a power cut, damage within the last transaction, is let pass:
    if that was acknowledged, it was whole.
    """
    for file in (directory.journal, directory.tables, directory.cold):
        found = check_wal(file.with_name(file.name + "-wal"))
        if found.damage and not found.in_last_transaction:
            raise DataDamaged(found.damage)


def recover(journal: Journal, tables: Tables, settings: Settings) -> State:
    """The state as of the last commit: what the tables do not hold is read into memory.

    Raises `DataDamaged` if a commit is missing or not what was written.
    """
    watermark, version = tables.watermark()
    last = journal.check(watermark)
    state = State(watermark, version, settings.cached_conversations)
    for journal_id, commit, body_bytes in journal.after(watermark, last):
        _load_slots(state, tables, commit)
        state.apply(journal_id, commit, body_bytes)
    return state


def _load_slots(state: State, tables: Tables, commit: Commit) -> None:
    for record in commit.records:
        if isinstance(record, Archived | Trimmed):
            _load_slot(state, tables, record.key)
        elif isinstance(record, Written):
            slot = _load_slot(state, tables, record.key, created=record.row is not None)
            if slot is not None:
                for user in sent_markers(record.entries):  # their markers move
                    if not slot.knows(user):
                        slot.learn(user, tables.member(record.key, user))


def _load_slot(
    state: State, tables: Tables, key: ConversationKey, *, created: bool = False
) -> Slot | None:
    """The slot of a conversation that the journal writes to; None if it may be created now."""
    slot = state.slot_of_key(key)
    if slot is not None:
        return slot
    row = tables.conversation_by_key(key)
    if row is not None:
        return state.keep(row)
    if created:
        return None
    raise DataDamaged(f"tables.db lacks a conversation that the journal writes to: {key:016x}.")
