"""The cache generation of each database, a row among what its workers agree on."""

from collections.abc import Callable, Sequence
from typing import Final

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.deployment import agree, agreed
from trunkline.adapters.mysql.sql import statement
from trunkline.core.generations import ID_BYTES, Generation

_NAME: Final = "cache_generation"


class MysqlGenerations:
    """A `ports.generations.Generations`; lanes are the databases in the settings' order."""

    def __init__(self, databases: Sequence[Database], random_bits: Callable[[int], int]) -> None:
        self._databases = databases
        self._random_bits = random_bits

    async def current(self, lane: int) -> Generation:
        """What stands there; a closed one is put there where there was none."""
        database = self._databases[lane]
        while (found := await agreed(database, _NAME)) is None:
            new = Generation.closed(self._random_bits(8 * ID_BYTES))
            await agree(database, _NAME, new.encode())
        return Generation.decode(found)

    async def replace(self, lane: int, old: Generation, new: Generation) -> bool:
        """Puts `new` in the place of `old`; False if it is another."""

        async def work(connection: Connection) -> int:
            return await connection.execute(
                statement("deployment_replace", key=_NAME, old=old.encode(), value=new.encode())
            )

        return bool(await self._databases[lane].transaction(work))
