"""Compares what was set apart of a conversation with what the store has, and tells of the rest."""

from typing import Final

from trunkline.client.endpoint import Endpoint
from trunkline.errors import EntriesLost
from trunkline.model import ConversationId, Entry, Kind, Seq

_PAGE_ENTRIES: Final = 256


async def heal(endpoint: Endpoint, conversation: ConversationId) -> None:
    """Keeps apart what the store does not have, and forgets the rest; the copy is complete.

    Reports `EntriesLost` with the entries, if the store was restored: else only this endpoint's
    own copy was damaged, and `DigestMismatch` has said so.
    """
    held = endpoint.replica.held[conversation]
    lost: dict[Seq, Entry] = {}
    for apart in await endpoint.apart():
        if apart.settled or apart.copy.conversation != conversation:
            continue
        differing = await _differing(
            endpoint, conversation, await endpoint.read_apart(apart.number)
        )
        await endpoint.settle(apart.number, differing)
        lost.update((entry.seq, entry) for entry in differing if entry.kind is not Kind.LOST)
    entries = [lost[seq] for seq in sorted(lost)]
    if entries and held.restored:
        own = sum(entry.sender == endpoint.user for entry in entries)
        endpoint.report(
            EntriesLost(
                f"{len(entries)} entries of conversation {conversation!r} that this endpoint "
                f"held are not in the store any more, {own} of them its own user's: they are set "
                "apart.",
                conversation=conversation,
                entries=entries,
            )
        )
    endpoint.healed(conversation, entries)


async def _differing(
    endpoint: Endpoint, conversation: ConversationId, before: list[Entry]
) -> list[Entry]:
    found: list[Entry] = []
    for start in range(0, len(before), _PAGE_ENTRIES):
        page = before[start : start + _PAGE_ENTRIES]
        stored = await endpoint.read(conversation, Seq(page[0].seq - 1), page[-1].seq)
        now = {entry.seq: entry for entry in stored}
        found += [entry for entry in page if now.get(entry.seq) != entry]
    return found
