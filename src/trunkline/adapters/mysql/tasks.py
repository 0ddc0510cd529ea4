"""Archive tasks as rows, leased with SKIP LOCKED; a token proves the lease."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

import structlog

from trunkline.adapters.mysql.connection import Connection
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.literals import keys as key_list
from trunkline.adapters.mysql.rows import conversation_of
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.errors import DataDamaged
from trunkline.model import Conversation, ConversationKey, Seq
from trunkline.ports.readings import Reading
from trunkline.ports.tasks import ArchiveTask, Waiting

_log = structlog.get_logger("trunkline.mysql")
_ORPHAN_SECONDS: Final = 5.0
_MOST_DOUBLED: Final = 10
"""Such a task is met again after 5 s, then after twice as long each time, up to 85 minutes."""


class MysqlTaskStore:
    """A `ports.tasks.TaskStore` of these databases.

    Leases end by the database's clock. One that is wrong, as after a failover, costs double
    work, nothing else: the token decides.
    """

    def __init__(
        self,
        databases: Sequence[Database],
        shards: ShardMap[Database],
        random_bits: Callable[[int], int],
    ) -> None:
        self._databases = databases
        self._shards = shards
        self._random_bits = random_bits
        self._orphans = 0

    def readings(self) -> list[Reading]:
        """What was leased and could not be archived by anybody."""
        return [Reading("trunkline_hot_orphaned_tasks", "", lambda: self._orphans)]

    async def lease(self, limit: int, lease_seconds: float) -> Sequence[ArchiveTask]:
        """Up to `limit` tasks that nobody holds, longest waiting first."""
        lease_ms = int(lease_seconds * 1000)
        free = await asyncio.gather(
            *(database.query(statement("tasks_free", limit=limit)) for database in self._databases)
        )
        keys = [ConversationKey(key) for _, key in sorted(chain.from_iterable(free))[:limit]]
        leased = await asyncio.gather(
            *(
                self._lease(database, there, lease_ms)
                for database, there in self._shards.by_key(keys).items()
            )
        )
        tasks = {task.conversation.key: task for task in chain.from_iterable(leased)}
        return [tasks[key] for key in keys if key in tasks]

    async def _lease(
        self, database: Database, keys: Sequence[ConversationKey], lease_ms: int
    ) -> Sequence[ArchiveTask]:
        async def work(connection: Connection) -> Sequence[ArchiveTask]:
            wanted = {"keys": key_list(keys)}
            free = await connection.rows(statement("tasks_taken", lists=wanted))
            if not free:
                return ()
            taken = {"keys": key_list(key for key, _ in free)}
            token = self._random_bits(63)
            await connection.execute(
                statement("task_lease", token=token, lease_ms=lease_ms, lists=taken)
            )
            found = await connection.rows(statement("conversations", lists=taken))
            held = {row.key: row for row in map(conversation_of, found)}
            for key, attempts in free:
                if key not in held:
                    await self._fail_orphan(connection, database, key, token, attempts)
            return [ArchiveTask(held[key], token, tries) for key, tries in free if key in held]

        return await database.transaction(work)

    async def _fail_orphan(
        self, connection: Connection, database: Database, key: int, token: int, attempts: int
    ) -> None:
        """A task of a conversation that is not there waits by itself, and is told of."""
        self._orphans += 1
        pause_ms = int(_ORPHAN_SECONDS * 1000 * 2 ** min(attempts, _MOST_DOUBLED))
        await connection.execute(
            statement(
                "task_failed", key=key, token=token, error=DataDamaged.code, pause_ms=pause_ms
            )
        )
        _log.error(
            "archive_task_orphaned", database=database.name, key=f"{key:016x}", attempts=attempts,
            advice="Its conversation is not in this database: run `trunkline audit`.",
        )  # fmt: skip

    async def archived(self, progress: Sequence[tuple[ArchiveTask, Seq]]) -> None:
        """Raises archived_up_to (I10), of those whose lease still is the task's."""
        up_to = {task.conversation.key: seq for task, seq in progress}
        for database, tasks in self._by_database([task for task, _ in progress]).items():

            async def work(connection: Connection, tasks: Sequence[ArchiveTask] = tasks) -> None:
                for key in await _held(connection, tasks):
                    await connection.execute(statement("archived", key=key, up_to=up_to[key]))

            await database.transaction(work)

    async def done(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases; what was appended meanwhile waits anew."""
        for database, there in self._by_database(tasks).items():

            async def work(connection: Connection, tasks: Sequence[ArchiveTask] = there) -> None:
                held = await _held(connection, tasks)
                if held:
                    ended = {"keys": key_list(held)}
                    await connection.execute(statement("task_delete", lists=ended))
                again = [f"({key})" for key, row in held.items() if row.to_be_archived]
                if again:
                    await connection.execute(
                        statement("task_insert", lists={"rows": ",".join(again)})
                    )

            await database.transaction(work)

    async def failed(self, task: ArchiveTask, code: str, again_after_seconds: float) -> None:
        """Ends the lease; the task waits before it is leased again."""
        text = statement(
            "task_failed", key=task.conversation.key, token=task.token, error=code,
            pause_ms=int(again_after_seconds * 1000),
        )  # fmt: skip

        async def work(connection: Connection) -> None:
            await connection.execute(text)

        await self._shards.of_key(task.conversation.key).transaction(work)

    async def give_back(self, tasks: Sequence[ArchiveTask]) -> None:
        """Ends the leases as if they had not been, in one transaction a database."""
        for database, there in self._by_database(tasks).items():
            texts = [
                statement("task_give_back", key=task.conversation.key, token=task.token)
                for task in sorted(there, key=lambda task: task.conversation.key)
            ]

            async def work(connection: Connection, texts: Sequence[str] = texts) -> None:
                for text in texts:
                    await connection.execute(text)

            await database.transaction(work)

    async def waiting(self) -> Waiting:
        """What is not yet fully archived, its age by the clocks of the databases."""
        found = await asyncio.gather(
            *(database.query(statement("tasks_waiting")) for database in self._databases)
        )
        return Waiting(
            sum(int(count) for ((count, _),) in found),
            max(float(seconds) for ((_, seconds),) in found),
        )

    def _by_database(self, tasks: Sequence[ArchiveTask]) -> Mapping[Database, list[ArchiveTask]]:
        found: dict[Database, list[ArchiveTask]] = {}
        for task in tasks:
            found.setdefault(self._shards.of_key(task.conversation.key), []).append(task)
        return found


async def _held(
    connection: Connection, tasks: Sequence[ArchiveTask]
) -> dict[ConversationKey, Conversation]:
    """The locked rows of those conversations whose lease is the task's.

    Conversations are locked first, as an append does, which wakes under the same lock.
    """
    tokens = {task.conversation.key: task.token for task in tasks}
    keys = {"keys": key_list(sorted(tokens))}
    locked = await connection.rows(statement("conversations_locked", lists=keys))
    held: dict[int, int] = dict(await connection.rows(statement("tasks_held", lists=keys)))
    found = map(conversation_of, locked)
    return {row.key: row for row in found if held.get(row.key) == tokens[row.key]}
