"""What must be known of a database before this process works with it."""

from collections.abc import Callable
from typing import Final

from trunkline.adapters.mysql.age import Age
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import SENTINEL, agree, agreed
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.migrate import check_version, shipped_steps
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import KeyringWrong, ServerUnsafe, StorageUnavailable

_SAFE: Final = {
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "sync_binlog": "1",
}


class Admission:
    """Admits the databases of a deployment.

    The keyring is checked with what the deployment agreed on, which stands in the first database,
    and as a copy in the others: so each of them tells whether it is the right one.
    """

    def __init__(self, settings: Settings, agree: Callable[[bytes], None]) -> None:
        """`agree` raises `KeyringWrong` if a sentinel is not of this process's keyring."""
        self._accept_unsafe = settings.accept_unsafe
        self._agree = agree
        self._sentinel: bytes | None = None

    async def admit(self, epochs: Epochs, age: Age, database: Database, *, first: bool) -> None:
        """Learns what must be known, asking `database`.

        Raises `ServerUnsafe`, `StoreNotMigrated`, `StoreNewer`, `KeyringWrong` or
        `StorageUnavailable`.
        """
        if not self._accept_unsafe:
            await check_safe(database)
        await check_version(database, shipped_steps())
        await epochs.load(database)
        await age.load(database)
        sentinel = await agreed(database, SENTINEL)
        if first:
            if not sentinel:
                raise KeyringWrong("No keyring was agreed on: run `trunkline migrate`.")
            self._sentinel = sentinel
        elif not sentinel:
            sentinel = await self._copied(database)
        self._agree(sentinel)

    async def _copied(self, database: Database) -> bytes:
        """Puts a copy where an older version's `migrate` left none."""
        if self._sentinel is None:
            raise StorageUnavailable("The deployment's first database has not answered yet.")
        await agree(database, SENTINEL, self._sentinel)
        return self._sentinel


async def check_safe(database: Database) -> None:
    """Raises `ServerUnsafe` and names the setting."""
    found = {name.lower(): value for name, value in await database.query(statement("variables"))}
    for name, safe in _SAFE.items():
        if name == "sync_binlog" and found.get("log_bin") == "OFF":
            continue
        if found.get(name, safe) != safe:
            raise ServerUnsafe(
                f"The database {database.name} has {name} = {found[name]}; "
                f"what it commits is safe with {safe} only."
            )
