"""What a store holds of a conversation as counts and sums, by which two stores are compared."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

import msgspec

from trunkline.core import digest as digests
from trunkline.core.rows import conversation_row, digest_bytes, member_row
from trunkline.model import NO_DIGEST, ColdMetadata, Conversation, Digest, Member, Segment

_HASH_BYTES: Final = digests.DIGEST_BYTES
_encode = msgspec.msgpack.Encoder().encode


class Sum(msgspec.Struct):
    """Records counted, and the sum of a hash over all bytes of each: order-free, bounded."""

    count: int = 0
    total: Digest = NO_DIGEST

    def add(self, record: object) -> None:
        """Takes a record whose fields MessagePack can hold."""
        self.count += 1
        data = blake2b(_encode(record), digest_size=_HASH_BYTES).digest()
        self.total = digests.add(self.total, data)


class Holdings:
    """A store's records of one conversation, by what they are."""

    def __init__(self) -> None:
        self._sums: dict[str, Sum] = {}

    def count(self, what: str) -> int:
        """How many records of this sort were taken."""
        return self._sums[what].count if what in self._sums else 0

    def add(self, what: str, records: Iterable[object]) -> None:
        """Takes records as they are: entries, client message ids, listings, offsets."""
        total = self._sums.setdefault(what, Sum())
        for record in records:
            total.add(record)

    def add_conversation(self, conversation: Conversation) -> None:
        """Takes the conversation's row, with head, count and digest of its entries (I14)."""
        self.add("rows", [conversation_row(conversation)])

    def add_members(self, members: Iterable[Member]) -> None:
        """Takes members with their views and markers."""
        self.add("members", map(member_row, members))

    def add_segment(self, segment: Segment) -> None:
        """Takes a sealed segment."""
        s = segment
        self.add("segments", [(s.key, s.first, s.last, digest_bytes(s.digest), s.sealed)])

    def add_metadata(self, metadata: ColdMetadata) -> None:
        """Takes what the cold store knows of the conversation."""
        members = [member_row(member) for member in metadata.members]
        self.add("metadata", [(conversation_row(metadata.conversation), members)])

    def differences(self, other: "Holdings") -> Iterator[str]:
        """A sentence for each sort of which the other holds something else."""
        for what in sorted(self._sums.keys() | other._sums.keys()):
            mine, theirs = self._sums.get(what, Sum()), other._sums.get(what, Sum())
            if mine.count != theirs.count:
                yield f"{theirs.count} of {mine.count} {what}"
            elif mine.total != theirs.total:
                yield f"{mine.count} {what} of other bytes"
