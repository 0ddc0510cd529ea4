"""Digests of ranges of a vector: two vectors are compared by sums, not seq by seq.

A conversation's *place* is a hash of its id. A range is all conversations whose places begin
with the same 8 bits, a part of it those whose places begin with the same 13. The sum of a range
or of a part is that of its terms of the vector digest: so where two vectors differ shows in few
sums, whatever they hold (DESIGN section 4).
"""

from collections.abc import Iterator, KeysView, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from struct import Struct
from typing import Final

from trunkline.core.digest import move_vector, vector_term
from trunkline.errors import InvalidInput
from trunkline.model import NO_DIGEST, NO_SEQ, ConversationId, Seq

RANGES: Final = 256
PARTS: Final = 32
"""Of each range."""
_SHIFT: Final = 64 - 13
_SUM_MASK: Final = (1 << 64) - 1
_RANGE_SUMS: Final = Struct(f">{RANGES}Q")
_PART_SUMS: Final = Struct(f">{PARTS}Q")
_HELD: Final = Struct(">QQ")
HELD_BYTES: Final = _HELD.size
"""Of what is held of one conversation, in a part."""
_PLACED_AT_ONCE: Final = 256


def place_of(conversation: ConversationId) -> int:
    """64 bits: BLAKE2b with a digest size of 8 bytes over the id, read as big endian."""
    return int.from_bytes(blake2b(conversation.encode(), digest_size=8).digest(), "big")


def part_of(place: int) -> int:
    """The part of all 8,192 in which a place lies; divided by `PARTS` it is the range."""
    return place >> _SHIFT


class Vector:
    """The last seq of each conversation, with its digest and, once asked for, its ranges.

    Attributes:
        seqs: those above 0.
        digest: the sum of all terms, modulo 2^128.
    """

    __slots__ = ("_places", "_sums", "digest", "seqs")

    def __init__(self) -> None:
        self.seqs: dict[ConversationId, Seq] = {}
        self.digest = NO_DIGEST
        self._sums: list[int] = []
        self._places: list[dict[ConversationId, int]] = []

    def of(self, conversation: ConversationId) -> Seq:
        """The seq of a conversation, 0 if it has none."""
        return self.seqs.get(conversation, NO_SEQ)

    def move(self, conversation: ConversationId, seq: Seq) -> None:
        """Takes over a seq of one conversation, at the cost of two hashes."""
        old = self.seqs.get(conversation, NO_SEQ)
        if old == seq:
            return
        self.digest = move_vector(self.digest, conversation, old, seq)
        if seq:
            self.seqs[conversation] = seq
        else:
            del self.seqs[conversation]
        if self._places:
            change = vector_term(conversation, seq) - vector_term(conversation, old)
            _place(self._sums, self._places, conversation, change)

    def divide(self) -> Iterator[None]:
        """Sums the ranges, the first time; comes back after every few hundred conversations.

        Nothing may move in between.
        """
        if self._places:
            return
        sums = [0] * RANGES
        places: list[dict[ConversationId, int]] = [{} for _ in range(RANGES)]
        seqs = iter(self.seqs.items())
        while some := list(islice(seqs, _PLACED_AT_ONCE)):
            for conversation, seq in some:
                _place(sums, places, conversation, vector_term(conversation, seq))
            yield
        self._sums, self._places = sums, places

    def sums(self) -> list[int]:
        """The sum of each range, modulo 2^64; after `divide`."""
        return list(self._sums)

    def conversations(self, number: int) -> KeysView[ConversationId]:
        """Those of a range, some of which may have no seq any more; after `divide`."""
        return self._places[number].keys()

    def part_sums(self, number: int) -> bytes:
        """The sums of the parts of a range, 8 bytes each, big endian; after `divide`."""
        sums = [0] * PARTS
        for conversation, place in self._places[number].items():
            sums[part_of(place) % PARTS] += vector_term(conversation, self.of(conversation))
        return _PART_SUMS.pack(*(total & _SUM_MASK for total in sums))

    def unlike(self, number: int, told: bytes) -> dict[int, bytes]:
        """The parts of a range whose sums are not as told, with what is held there, packed.

        Each conversation is its place and its seq, 8 bytes each, big endian; those without a seq
        are left out. After `divide`; raises `InvalidInput`.
        """
        parts: list[list[ConversationId]] = [[] for _ in range(PARTS)]
        places = self._places[number]
        for conversation, place in places.items():
            parts[part_of(place) % PARTS].append(conversation)
        unlike: dict[int, bytes] = {}
        for part, theirs in enumerate(_unpack(_PART_SUMS, told)):
            mine = sum(vector_term(c, self.of(c)) for c in parts[part])
            if mine & _SUM_MASK != theirs:
                unlike[number * PARTS + part] = b"".join(
                    _HELD.pack(places[c], self.seqs[c]) for c in parts[part] if c in self.seqs
                )
        return unlike

    def held_in(self, number: int, told: Mapping[int, bytes]) -> dict[ConversationId, Seq]:
        """What was told to be held in some parts of a range, of the conversations that are there:
        0 where it was not named. After `divide`; raises `InvalidInput`.
        """
        held: dict[int, int] = {}
        for pieces in told.values():
            if len(pieces) % _HELD.size:
                raise InvalidInput(f"What is held comes in pieces of {_HELD.size} bytes.")
            held.update(_HELD.iter_unpack(pieces))
        return {
            conversation: Seq(held.get(place, NO_SEQ))
            for conversation, place in self._places[number].items()
            if part_of(place) in told
        }


def pack_sums(sums: Sequence[int]) -> bytes:
    """The sums of all ranges, 8 bytes each, big endian."""
    return _RANGE_SUMS.pack(*sums)


def unpack_sums(told: bytes) -> Sequence[int]:
    """The inverse of `pack_sums`; raises `InvalidInput`."""
    return _unpack(_RANGE_SUMS, told)


def move_sums(sums: list[int], conversation: ConversationId, old: Seq, new: Seq) -> None:
    """The sums after one conversation moved from `old` to `new`."""
    number = part_of(place_of(conversation)) // PARTS
    change = vector_term(conversation, new) - vector_term(conversation, old)
    sums[number] = (sums[number] + change) & _SUM_MASK


def _place(
    sums: list[int],
    places: list[dict[ConversationId, int]],
    conversation: ConversationId,
    change: int,
) -> None:
    place = place_of(conversation)
    number = part_of(place) // PARTS
    sums[number] = (sums[number] + change) & _SUM_MASK
    places[number][conversation] = place


def _unpack(struct: Struct, told: bytes) -> Sequence[int]:
    if len(told) != struct.size:
        raise InvalidInput(f"Sums of {struct.size} bytes were expected, not {len(told)}.")
    return struct.unpack(told)
