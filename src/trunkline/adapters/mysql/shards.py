"""Which database holds a shard: ranges of the 1,024 logical shards, from the settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from trunkline.core.ids import SHARDS, shard_hash, shard_of
from trunkline.errors import ConfigInvalid
from trunkline.model import ConversationId, ConversationKey, UserId

Held = TypeVar("Held")
Item = TypeVar("Item")


class ShardMap(Generic[Held]):
    """Looks up who holds a shard.

    Raises `ConfigInvalid` unless each shard is held once.
    """

    def __init__(self, ranges: Iterable[tuple[tuple[int, int], Held]]) -> None:
        holders: dict[int, Held] = {}
        self.all: list[Held] = []
        for (first, last), holder in ranges:
            self.all.append(holder)
            for shard in range(first, last + 1):
                if shard in holders:
                    raise ConfigInvalid(f"Two databases hold shard {shard}.")
                holders[shard] = holder
        missing = [shard for shard in range(SHARDS) if shard not in holders]
        if missing:
            raise ConfigInvalid(f"No database holds shard {missing[0]}.")
        self._holders = [holders[shard] for shard in range(SHARDS)]

    def lanes(self) -> Sequence[int]:
        """Who holds each shard, by their number in `all`."""
        numbers = {holder: number for number, holder in enumerate(self.all)}
        return [numbers[holder] for holder in self._holders]

    def of_key(self, key: ConversationKey) -> Held:
        """Who holds the conversation of a key."""
        return self._holders[shard_of(key)]

    def of_conversation(self, conversation: ConversationId) -> Held:
        """Who holds a conversation."""
        return self._holders[shard_hash(conversation)]

    def of_user(self, user: UserId) -> Held:
        """Who holds a user's conversation list and read offsets."""
        return self._holders[shard_hash(user)]

    def by_user(self, users: Iterable[UserId]) -> Mapping[Held, list[UserId]]:
        """Users by who holds their lists."""
        return _grouped((self.of_user(user), user) for user in users)

    def by_key(self, keys: Iterable[ConversationKey]) -> Mapping[Held, list[ConversationKey]]:
        """Keys by who holds their conversations."""
        return _grouped((self.of_key(key), key) for key in keys)

    def by_conversation(
        self, conversations: Iterable[ConversationId]
    ) -> Mapping[Held, list[ConversationId]]:
        """Conversations by who holds them."""
        return _grouped((self.of_conversation(c), c) for c in conversations)


def _grouped(pairs: Iterable[tuple[Held, Item]]) -> dict[Held, list[Item]]:
    found: dict[Held, list[Item]] = {}
    for holder, item in pairs:
        found.setdefault(holder, []).append(item)
    return found
