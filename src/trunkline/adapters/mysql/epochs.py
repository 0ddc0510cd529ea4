"""Fencing: whether this writer still is the one of its shards (I11)."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.literals import literals
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import ShardMoved, StoreNotMigrated
from trunkline.ports.readings import Reading

T = TypeVar("T")
Found = Mapping[int, int | None]
"""Epochs by shard, as a transaction found them; None: the database does not hold the shard."""

_log = structlog.get_logger("trunkline.mysql")
_RETRY_SECONDS: Final = 1.0


class Epochs:
    """The epochs of a database's shards, as of when this writer last took them over.

    Attributes:
        gone: shards that the settings name and that the database holds no more.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, int] = {}
        self.gone: frozenset[int] = frozenset()

    async def load(self, database: Database) -> None:
        """Takes the epochs that stand now; raises `StoreNotMigrated` if a shard has none.

        `database`: the same, by other sessions.
        """
        self._known = dict(await database.query(statement("shards")))
        missing = [shard for shard in self._own() if shard not in self._known]
        if missing:
            raise StoreNotMigrated(
                f"The database {self._database.name} does not hold shard {missing[0]}: "
                "run `trunkline migrate`."
            )

    async def look(self) -> None:
        """Sees whether shards were taken away, or came back, though nobody wrote to them."""
        first, last = self._database.place.shards
        counted = statement("shards_counted", first=first, last=last)
        ((count,),) = await self._database.query(counted)
        if count != len(self._own()) - len(self.gone):
            standing = await self._standing()
            self.learn({shard: standing.get(shard) for shard in self._own()})

    def readings(self) -> list[Reading]:
        """How many shards were taken away from under this worker."""
        return [Reading("trunkline_hot_shards_gone", "", lambda: len(self.gone))]

    def check(self, shards: Iterable[int]) -> None:
        """Raises `ShardMoved` if one is known to be gone: what is left of it here is old."""
        if not self.gone.isdisjoint(shards):
            raise _moved_away()

    def locking(self, shards: Collection[int]) -> str:
        """The statement that reads the epochs of shards; they stay until the transaction ends.

        A locking read: a plain one would not wait for a takeover that is under way.
        """
        return statement("shards_held", lists={"shards": literals(sorted(shards))})

    def found(self, shards: Collection[int], rows: Sequence[Row]) -> Found:
        """What the statement found of the shards."""
        held: dict[int, int] = dict(rows)
        return {shard: held.get(shard) for shard in shards}

    def moved(self, found: Found) -> Mapping[int, ShardMoved]:
        """Those of the shards that were taken over, and how their writes are refused."""
        known = self._known
        return {
            shard: ShardMoved() if epoch is not None else _moved_away()
            for shard, epoch in found.items()
            if epoch is None or epoch != known.get(shard)
        }

    def learn(self, found: Found) -> None:
        """Takes over what a transaction found, once it has ended: the next is of this epoch.

        A shard that is gone stays refused, until its row is there again.
        """
        for shard, epoch in found.items():
            if epoch is None:
                self._known.pop(shard, None)  # one that comes back was someone else's meanwhile
            else:
                self._known[shard] = epoch
        gone = frozenset(shard for shard, epoch in found.items() if epoch is None)
        if gone - self.gone:
            _log.error(
                "shards_gone", database=self._database.name, shards=sorted(gone - self.gone),
                advice="They were moved to another database: start this process with its settings.",
            )  # fmt: skip
        self.gone = gone | (self.gone - found.keys())

    async def transaction(
        self,
        shards: Collection[int],
        work: Callable[[Connection, Mapping[int, ShardMoved]], Awaitable[T]],
    ) -> T:
        """Runs `work` as `Database.transaction` does, behind the locking read of epochs.

        `work` is told which of the shards it must not write to.
        """

        async def fenced(connection: Connection) -> tuple[T, Found]:
            found = self.found(shards, await connection.rows(self.locking(shards)))
            return await work(connection, self.moved(found)), found

        result, found = await self._database.transaction(fenced)
        self.learn(found)
        return result

    def _own(self) -> range:
        first, last = self._database.place.shards
        return range(first, last + 1)

    async def _standing(self) -> dict[int, int]:
        return dict(await self._database.query(statement("shards")))


def _moved_away() -> ShardMoved:
    return ShardMoved(
        "This worker's database does not hold the shard any more: go on at another worker.",
        retry_after_seconds=_RETRY_SECONDS,
    )
