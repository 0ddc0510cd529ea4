"""Users' conversation lists, and the outbox through which a conversation's transaction
reaches them where they stand in another database.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

import msgspec
import structlog

from trunkline.adapters.mysql.bulk import found, insert, listed
from trunkline.adapters.mysql.connection import Connection, Row
from trunkline.adapters.mysql.database import Database
from trunkline.adapters.mysql.epochs import Epochs
from trunkline.adapters.mysql.literals import bracketed, literal
from trunkline.adapters.mysql.shards import ShardMap
from trunkline.adapters.mysql.sql import statement
from trunkline.core.ids import shard_hash
from trunkline.errors import ShardMoved, StorageUnavailable, TrunklineError
from trunkline.model import ConversationId, ConversationKey, UserConversation, UserId

_log = structlog.get_logger("trunkline.mysql")
_LEFT_SECONDS: Final = 5
_LEFT_ROWS: Final = 1_000
_TELL_SECONDS: Final = 2.0
"""How long a writer waits for the database of a list; then the list is told later."""
_TELL_LEFT_SECONDS: Final = 10.0
"""The same, where nobody's batch waits."""
_AWAY_SECONDS: Final = 60.0
"""How long no writer waits for that database again, unless it answered meanwhile."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A row of the outbox: this line of this user's list changed."""

    number: int
    user: UserId
    key: ConversationKey
    conversation: ConversationId


class Outbox:
    """Tells users' lists what conversations' transactions committed."""

    def __init__(
        self,
        shards: ShardMap[Database],
        epochs: Mapping[Database, Epochs],
        random_bits: Callable[[int], int],
    ) -> None:
        self._shards = shards
        self._epochs = epochs
        self._random_bits = random_bits
        self._away_until: dict[Database, float] = {}

    def line(self, user: UserId, key: ConversationKey, conversation: ConversationId) -> Line:
        """A new row."""
        return Line(self._random_bits(63), user, key, conversation)

    async def write(self, connection: Connection, lines: Sequence[Line]) -> None:
        """Puts rows into the conversation's transaction."""
        await insert(connection, "outbox_insert", self.rows(lines))

    def rows(self, lines: Sequence[Line]) -> list[str]:
        """The rows in SQL."""
        return [bracketed((line.number, line.user, line.key, line.conversation)) for line in lines]

    async def tell(self, origin: Database, lines: Sequence[Line]) -> None:
        """Tells the lists what was committed on `origin`; what fails is told later, what stands
        in a shard that was taken over by whoever holds it (I11).

        Whoever waits for this holds up a lane of appends, so that a database that is silent
        is not waited for long, and not each time.
        """
        if lines:
            now = asyncio.get_running_loop().time()
            away = {holder for holder, until in self._away_until.items() if until > now}
            await self._tell_all(origin, lines, _TELL_SECONDS, away)

    async def _tell_all(
        self, origin: Database, lines: Sequence[Line], seconds: float, away: Set[Database]
    ) -> Set[Database]:
        """Tells all lists but those of databases that are away, and waits so long at most.

        Returns the databases that were not told.
        """
        holders: dict[Database, list[Line]] = {}
        for line in lines:
            holders.setdefault(self._shards.of_user(line.user), []).append(line)
        asked = holders.keys() - away
        told = await asyncio.gather(
            *(self._tell(holder, holders[holder], seconds) for holder in asked)
        )
        numbers = sorted(line.number for part in told for line in part or ())
        if numbers:
            await self._forget(origin, numbers)
        return (holders.keys() & away) | {
            holder for holder, part in zip(asked, told, strict=True) if part is None
        }

    async def tell_left(self, origin: Database) -> int:
        """Tells what a worker that died, or a database that was away, left in a database.

        Returns how many lines were tried. A list's database that does not answer is waited for
        once, and holds up no line of another's.
        """
        count, after = 0, -1
        away: Set[Database] = frozenset()
        while True:
            text = statement("outbox_left", after=after, seconds=_LEFT_SECONDS, limit=_LEFT_ROWS)
            lines = [_line_of(row) for row in await origin.query(text)]
            if not lines:
                return count
            count, after = count + len(lines), lines[-1].number
            away |= await self._tell_all(origin, lines, _TELL_LEFT_SECONDS, away)

    async def tell_user(self, user: UserId) -> None:
        """Tells a user's list what any database has committed for it and not told yet.

        Whoever reads the list after this finds all that was acknowledged before (I4). A database
        that is known to be away is left out: what it has not told cannot be read either, and is
        told once it is back. Raises `StorageUnavailable`.
        """
        text = statement("outbox_of_user", user=user, limit=_LEFT_ROWS)
        origins = [origin for origin in self._shards.all if not origin.health.refuses]
        found = await asyncio.gather(*(origin.query(text) for origin in origins))
        for origin, left in zip(origins, found, strict=True):
            lines = [_line_of(row) for row in left]
            while lines:
                if await self._tell_all(origin, lines, _TELL_LEFT_SECONDS, frozenset()):
                    raise StorageUnavailable(
                        "The user's list does not take what was committed for it.",
                        retry_after_seconds=1.0,
                    )
                full = len(lines) == _LEFT_ROWS
                lines = [_line_of(row) for row in await origin.query(text)] if full else []

    async def _tell(
        self, holder: Database, lines: Sequence[Line], seconds: float
    ) -> Sequence[Line] | None:
        """The lines that a list's database took; None if it took none."""
        shards = {line.user: shard_hash(line.user) for line in lines}

        async def work(connection: Connection, moved: Mapping[int, ShardMoved]) -> Sequence[Line]:
            held = [line for line in lines if shards[line.user] not in moved]
            if held:
                await _raise_versions(connection, held)
            return held

        try:
            async with asyncio.timeout(seconds):
                told = await self._epochs[holder].transaction(set(shards.values()), work)
        except (TrunklineError, TimeoutError) as error:
            code = error.code if isinstance(error, TrunklineError) else "silent"
            _log.warning("list_not_told", database=holder.name, code=code, lines=len(lines))
            self._away_until[holder] = asyncio.get_running_loop().time() + _AWAY_SECONDS
            return None
        self._away_until.pop(holder, None)
        return told

    async def touch(self, connection: Connection) -> None:
        """Puts a row and takes it out again: the transaction's commit then takes, and is
        confirmed as, what any write's does.
        """
        line = self.line(UserId(""), ConversationKey(0), ConversationId(""))
        await self.write(connection, [line])
        await self.erase(connection, [line.number])

    async def erase(self, connection: Connection, numbers: Sequence[int]) -> None:
        """Takes rows out in a transaction on the database where they stand."""
        for text in listed("outbox_delete", "numbers", map(literal, numbers)):
            await connection.execute(text)

    async def _forget(self, origin: Database, numbers: Sequence[int]) -> None:
        async def work(connection: Connection) -> None:
            await self.erase(connection, numbers)

        try:
            await origin.transaction(work)
        except TrunklineError as error:
            _log.warning("outbox_not_emptied", database=origin.name, code=error.code)


def _line_of(row: Row) -> Line:
    number, user, key, name = row
    return Line(number, UserId(user.decode()), ConversationKey(key), ConversationId(name.decode()))


async def _raise_versions(connection: Connection, lines: Sequence[Line]) -> None:
    """Gives each line of a user's list the user's next version; all users in order."""
    by_user: dict[UserId, dict[ConversationKey, ConversationId]] = defaultdict(dict)
    for line in lines:
        by_user[line.user][line.key] = line.conversation
    users = sorted(by_user)
    await insert(connection, "user_version_raise", [bracketed((user, 1)) for user in users])
    raised = await found(connection, "user_versions", "users", map(literal, users))
    versions = {UserId(user.decode()): version for user, version in raised}
    values = [
        bracketed((user, key, conversation, versions[user]))
        for user in users
        for key, conversation in sorted(by_user[user].items())
    ]
    await insert(connection, "user_conversation_put", values)


async def conversations_of(
    database: Database, user: UserId, changed_after: int
) -> Sequence[UserConversation]:
    """The user's list with version > `changed_after`, oldest change first."""
    text = statement("conversations_of", user=user, version=changed_after)
    return [
        UserConversation(ConversationId(name.decode()), ConversationKey(key), version)
        for name, key, version in await database.query(text)
    ]
