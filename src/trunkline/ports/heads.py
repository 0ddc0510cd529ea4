"""Heads: conversation rows by their keys, for the comparison of what was pushed with what is there.

Every hot store implements it; it is a port of its own because only workers that share the
tiers ask.
"""

from collections.abc import Sequence
from typing import Protocol

from trunkline.model import Conversation, ConversationKey


class Heads(Protocol):
    """Raises `StorageUnavailable` (retryable) when it does not answer."""

    async def rows(self, keys: Sequence[ConversationKey]) -> Sequence[Conversation]:
        """Rows, as of the last commit, of those conversations that exist, in the keys' order.

        Hundreds of keys are one call, and one round trip a database.
        """
        ...
