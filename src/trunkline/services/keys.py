"""Re-wraps and destroys conversations' data keys, in hot and in cold (DESIGN section 8).

Cold goes first in both: a row of the hot tier that is under the new KEK, or shredded, says
that its metadata in the cold tier is too. So what was cut short goes on where it was, any
number may do it at one time, and only the hot tier has to be asked how far it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.core.member_macs import MemberMacs
from trunkline.errors import KeyInUse, NotMember
from trunkline.model import ColdMetadata, Conversation, ConversationId, ConversationKey
from trunkline.ports.cold import ColdStore
from trunkline.ports.hot import HotStore
from trunkline.ports.keys import WrappedKeys
from trunkline.ports.sealer import Sealer

_PASSES: Final = 16
SHREDDED: Final = 0
"""Stands for the KEK of those that have no key any more."""


class KeyChanges:
    """What is done to the wrapped keys of a deployment, beside all that runs."""

    def __init__(self, hot: HotStore, keys: WrappedKeys, cold: ColdStore, sealer: Sealer) -> None:
        self._hot = hot
        self._keys = keys
        self._cold = cold
        self._sealer = sealer

    async def bind(self) -> int:
        """Binds each key and each member's row of a store of the first version to its place.

        Returns how many conversations it took; raises as `rewrap`.
        """
        return await self._through(lambda _: None, self._sealer.macs)

    async def rewrap(self, *, told: Callable[[int], None] = lambda _: None) -> int:
        """Wraps every conversation's key with the current KEK; returns how many it took.

        Goes round until none is left, since others may create some under an older one
        meanwhile. `told` hears the count so far. Raises `KeyringBehind` or `KeyringWrong`
        if one does not unwrap, and as the stores do; it may then be run again.
        """
        return await self._through(told, None)

    async def _through(self, told: Callable[[int], None], macs: MemberMacs | None) -> int:
        count = 0
        for _ in range(_PASSES):
            found = 0
            async for rows in self._keys.wrapped_otherwise(self._sealer.kek_id):
                await self._rewrap(rows, macs)
                found += len(rows)
                told(count + found)
            count += found
            if not found:
                break
        return count

    async def _rewrap(self, rows: Sequence[Conversation], macs: MemberMacs | None) -> None:
        new = {row.key: self._sealer.rewrapped(row.wrapped_key, row.place) for row in rows}
        await self._put_cold(rows, new)
        then = await self._keys.rewrap([(row, new[row.key]) for row in rows], macs)
        # What an archiver has stored meanwhile under the old KEK is hidden by what was put
        # here; if it was newer, it is put again.
        seen = {row.key: _state(row) for row in rows}
        stale = [row for row in then if macs is not None or seen[row.key] != _state(row)]
        await self._put_cold(stale, {})

    async def _put_cold(
        self, rows: Sequence[Conversation], new: Mapping[ConversationKey, bytes]
    ) -> None:
        metadata = [
            ColdMetadata(
                msgspec.structs.replace(row, wrapped_key=new.get(row.key, row.wrapped_key)),
                tuple((await self._hot.members(row.key)).values()),
            )
            for row in rows
        ]
        if metadata:
            await self._cold.put([], metadata)

    async def shred(self, conversation: ConversationId) -> Conversation:
        """Destroys a conversation's wrapped key in cold and hot; again does no harm.

        Returns its row before. Raises `NotMember` if there is none of this id.
        """
        row = await self._keys.find(conversation)
        if row is None:
            raise NotMember(f"There is no conversation {conversation!r}.")
        emptied = msgspec.structs.replace(row, wrapped_key=b"", sealed_name=b"")
        await self._put_cold([emptied], {})
        await self._keys.shred(row)
        return row

    async def check_unused(self, kek_id: int) -> None:
        """Raises `KeyInUse` if a conversation is wrapped with this KEK."""
        counts = await self._keys.counts()
        count = sum(counted.get(kek_id, 0) for counted in counts.values())
        if count:
            raise KeyInUse(
                f"{count:,} conversations are wrapped with key {kek_id}: run "
                "`trunkline keys rotate` first."
            )


def _state(conversation: Conversation) -> tuple[int, bytes]:
    return conversation.membership_version, conversation.sealed_name
