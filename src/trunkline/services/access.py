"""Whose conversation it is: every read goes through a member's view (I13)."""

from collections.abc import Collection, Mapping

import msgspec

from trunkline.core import ids
from trunkline.core.views import View, view_of
from trunkline.errors import NotMember
from trunkline.model import Conversation, ConversationId, UserId
from trunkline.ports.hot import HotStore


class Access(msgspec.Struct, frozen=True, gc=False):
    """A conversation as one of its members may see it."""

    conversation: Conversation
    view: View


class Views:
    """Looks up what a user may see."""

    def __init__(self, hot: HotStore) -> None:
        self._hot = hot

    async def of(self, user: UserId, conversation: ConversationId) -> Access:
        """One conversation; raises `NotMember`."""
        return (await self.of_many(user, (conversation,)))[conversation]

    async def of_many(
        self, user: UserId, conversations: Collection[ConversationId]
    ) -> Mapping[ConversationId, Access]:
        """Many conversations; raises `NotMember` unless the user is or was a member of all."""
        found = await self.known(user, conversations)
        if len(found) < len(set(conversations)):
            raise NotMember
        return found

    async def known(
        self, user: UserId, conversations: Collection[ConversationId]
    ) -> Mapping[ConversationId, Access]:
        """Those of the conversations that the user may see.

        Nothing is looked up where the id says that it is other people's: how long an answer
        takes tells nothing of what they have (I13).
        """
        part = ids.part_of_single(user)
        asked = [id_ for id_ in conversations if ids.may_be_of(id_, part)]
        rows = await self._hot.views(user, asked) if asked else {}
        return {
            id_: Access(conversation, view_of(conversation, member))
            for id_, (conversation, member) in rows.items()
        }
