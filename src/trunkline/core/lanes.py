"""Which of the hot databases holds what: the databases are lanes, numbered as the settings are.

Whatever loops over databases does so with a loop a lane: one that is away, or silent, holds up
nothing of another.
"""

from collections.abc import Sequence
from typing import Final

from trunkline.core.ids import SHARDS, shard_hash, shard_of
from trunkline.model import ConversationId, ConversationKey, UserId


class Lanes:
    """Looks up lanes.

    Attributes:
        names: of the databases, as an operator knows them.
    """

    def __init__(self, names: Sequence[str], of_shards: Sequence[int]) -> None:
        """`of_shards`: the lane of each of the 1,024 shards."""
        assert len(of_shards) == SHARDS, "each shard is in a lane"
        self.names = names
        self._of_shards = of_shards

    @property
    def count(self) -> int:
        """How many lanes there are."""
        return len(self.names)

    def of(self, id_: ConversationId | UserId) -> int:
        """The lane that holds a conversation, or a user's list and read offsets, by its id."""
        return self._of_shards[shard_hash(id_)] if self.count > 1 else 0

    def of_key(self, key: ConversationKey) -> int:
        """The lane that holds a conversation, by its key."""
        return self._of_shards[shard_of(key)] if self.count > 1 else 0


ONE_LANE: Final = Lanes(("",), (0,) * SHARDS)
"""Where there is one database, or none."""
