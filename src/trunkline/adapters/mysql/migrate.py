"""Makes and upgrades the tables; safe to run twice, and from two places at once.

Each version has steps of two phases, as procrastinate has: what is made *before* the workers of
that version are started, beside which those of the version before go on, and what may only be
made *after* the last of these has stopped.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from functools import cache
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from trunkline.adapters.mysql.connection import AlreadyMade, Connection, Contended, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import AGREED_KEK
from trunkline.adapters.mysql.literals import rows
from trunkline.adapters.mysql.sql import FOLDER, statement
from trunkline.errors import (
    ConfigInvalid,
    StorageUnavailable,
    StoreNewer,
    StoreNotMigrated,
    TrunklineError,
)

_LOCK: Final = "trunkline.migrate"
_LOCK_SECONDS: Final = 5
_HELD_SECONDS: Final = 2
_HELD_TRIES: Final = 2
_HELD_PAUSE_SECONDS: Final = 0.5
_DO: Final = {StoreNewer: "use a newer Trunkline", StoreNotMigrated: "run `trunkline migrate`"}
_FILE: Final = re.compile(r"(\d{4})_(before|after)\.sql")


class Phase(StrEnum):
    """When a step may be made, seen from the start of its version's workers."""

    BEFORE = "before"
    AFTER = "after"


class Step(NamedTuple):
    """What one file changes."""

    version: int
    phase: Phase
    statements: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return f"{self.version:04}_{self.phase}"


class Versions(NamedTuple):
    """The newest step of each phase that a database has seen, 0 for none."""

    before: int
    after: int


class Migrated(NamedTuple):
    """The names of the steps that were made, and of those that wait for `after`."""

    made: Sequence[str]
    waiting: Sequence[str]


def read_steps(folder: Traversable) -> Sequence[Step]:
    """The steps of a folder, in the order in which they are made."""
    found = []
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            text = re.sub(r"^--.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            parts = tuple(part.strip() for part in text.split(";") if part.strip())
            found.append(Step(int(match[1]), Phase(match[2]), parts))
    return sorted(found, key=lambda step: (step.version, step.phase is Phase.AFTER))


@cache
def shipped_steps() -> Sequence[Step]:
    """The steps of this code."""
    return tuple(read_steps(FOLDER))


async def versions(database: Database) -> Versions:
    """What a database has seen."""
    if not await database.query(statement("schema_table")):
        return Versions(0, 0)
    return versions_of(await database.query(statement("schema_steps")))


class Unfit(NamedTuple):
    """Why code cannot work with tables, and the error that says so."""

    error: type[StoreNewer | StoreNotMigrated]
    why: str


def unfit(found: Versions, steps: Sequence[Step]) -> Unfit | None:
    """What keeps code with these steps from working with such tables, None if nothing does.

    It needs the steps that come before it, and takes none that come after a later version.
    """
    newest = steps[-1].version
    if found.after > newest:
        why = f"has tables for versions from {found.after} on, this is {newest}"
        return Unfit(StoreNewer, why)
    if found.before < newest:
        return Unfit(StoreNotMigrated, f"has tables of version {found.before}, this is {newest}")
    return None


async def check_version(database: Database, steps: Sequence[Step]) -> None:
    """Raises `StoreNewer` or `StoreNotMigrated` unless code with these steps can use the tables."""
    if problem := unfit(await versions(database), steps):
        raise problem.error(f"The database {database.name} {problem.why}: {_DO[problem.error]}.")


async def migrate(database: Database, steps: Sequence[Step], *, after: bool = False) -> Migrated:
    """Makes the steps that a database has not seen; those of a later phase only with `after`.

    An empty database gets all of them. Refuses to run backwards with `StoreNewer`, and a
    database of someone else's with `ConfigInvalid`. A change of tables commits by itself, so a
    lock keeps others out meanwhile, and each statement may be run again.
    """

    async def run(connection: Connection) -> Migrated:
        name = f"{_LOCK}.{database.place.database}"
        for _ in range(12):
            ((locked,),) = await connection.rows(
                statement("lock_take", lock=name, seconds=_LOCK_SECONDS)
            )
            if locked == 1:
                break
        else:
            raise StorageUnavailable("Another migration has run for a minute.")
        try:
            return await _upgrade(database, connection, steps, after=after)
        finally:
            await connection.rows(statement("lock_release", lock=name))

    return await database.transaction(run)


async def _upgrade(
    database: Database, connection: Connection, steps: Sequence[Step], *, after: bool
) -> Migrated:
    if not await connection.rows(statement("schema_table")):
        if await connection.rows(statement("tables")):
            raise ConfigInvalid(
                f"The database {database.name} has tables that no version of Trunkline records: "
                "name an empty one in `mysql.databases`."
            )
        await connection.execute(statement("schema_create"))
    found = versions_of(await connection.rows(statement("schema_steps")))
    problem = unfit(found, steps)
    if problem and problem.error is StoreNewer:
        raise StoreNewer(f"The database {database.name} {problem.why}: nothing was changed.")
    # Nobody works with tables that are only being made.
    after = after or found.before == 0
    due = [step for step in steps if step.version > getattr(found, step.phase)]
    made = [step for step in due if after or step.phase is Phase.BEFORE]
    for step in made:
        for text in step.statements:
            with suppress(AlreadyMade):  # by a run that was cut off before it could say so
                await _changed(database, connection, text)
        await connection.execute(
            statement("schema_made", version=step.version, phase=step.phase.value)
        )
        # Whoever comes after a cut must find the steps as made as the tables are.
        await connection.execute("COMMIT")
    first, last = database.place.shards
    shards = [(shard, 1) for shard in range(first, last + 1)]
    await connection.execute(statement("shard_insert", lists={"rows": rows(shards)}))
    await connection.execute(statement("deployment_put", key=AGREED_KEK, value=b"0"))
    return Migrated([step.name for step in made], [s.name for s in due if s not in made])


async def _changed(database: Database, connection: Connection, text: str) -> None:
    """Changes a table, once nobody holds it.

    While a change waits, every send waits behind it: so it does for seconds, and gives way in
    between. Raises `StorageUnavailable` that names who may hold it.
    """
    await connection.execute(f"SET SESSION lock_wait_timeout = {_HELD_SECONDS}")
    for _ in range(_HELD_TRIES):
        try:
            await connection.execute(text)
        except Contended:
            await asyncio.sleep(_HELD_PAUSE_SECONDS)
        else:
            return
    holders = await _holders(database, connection)
    raise StorageUnavailable(
        f"A table of the database {database.name} is held by another session, most likely by "
        f"{holders}. Nothing waits behind this any more. End that session, then run `trunkline "
        f"migrate` again: it goes on with {text.split('(')[0].strip()!r}."
    )


async def _holders(database: Database, connection: Connection) -> str:
    """The sessions that may hold a table, by the best that this user is allowed to see."""
    ((own,),) = await connection.rows(statement("session_number"))
    for name in ("schema_holders_locking", "schema_holders_open", "schema_holders_idle"):
        with suppress(TrunklineError):
            if found := await database.query(statement(name, own=own)):
                return ", ".join(
                    f"{session} (of {_text(user)}, for {seconds} s)"
                    for session, user, seconds in found
                )
    return "one that this user may not see (an administrator sees it in SHOW PROCESSLIST)"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def versions_of(found: Sequence[Row]) -> Versions:
    """What the rows of `schema_steps` say."""
    made = {Phase(phase.decode()): int(version) for version, phase in found}
    return Versions(made.get(Phase.BEFORE, 0), made.get(Phase.AFTER, 0))
