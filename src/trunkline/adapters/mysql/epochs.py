"""Fencing: whether this writer still is the one of its shards (I11)."""

from collections.abc import Collection, Sequence

from trunkline.adapters.mysql.connection import Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.literals import literals
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import StoreNotMigrated


class Epochs:
    """The epochs of a database's shards, as of when this writer last took them over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, int] = {}

    async def load(self) -> None:
        """Takes the epochs that stand now; raises `StoreNotMigrated` if a shard has none."""
        found: dict[int, int] = dict(await self._database.query(statement("shards")))
        first, last = self._database.place.shards
        missing = [shard for shard in range(first, last + 1) if shard not in found]
        if missing:
            raise StoreNotMigrated(
                f"The database {self._database.name} does not hold shard {missing[0]}: "
                "run `trunkline migrate`."
            )
        self._known = found

    def locking(self, shards: Collection[int]) -> str:
        """The statement that reads the epochs of shards; they stay until the transaction ends.

        A locking read: a plain one would not wait for a takeover that is under way.
        """
        return statement("shards_held", lists={"shards": literals(sorted(shards))})

    def moved(self, shards: Collection[int], found: Sequence[Row]) -> set[int]:
        """Those of the shards that were taken over, by what the statement found."""
        held: dict[int, int] = dict(found)
        return {shard for shard in shards if held.get(shard) != self._known.get(shard)}
