"""The cache generation: which cached heads count (DESIGN section 5).

Kept in the hot tier, one for each database. A head in the cached tier counts only under the
stamp of a generation that is open, and a generation is open on one server of the cached tier.

What a worker acknowledges must be in every head that is believed from then on. So it commits
under a lease, which shows it a generation for a bounded time, and acknowledges

- while the generation is bound to a server: once that server took the head over; or
- once it knows for the length of a lease that nothing is believed, since it is closed.

From closed to open a generation passes a state in which nothing is believed yet, but whoever
acknowledges needs the server already: when it opens, nobody is left who did not.
"""

from typing import Final

import msgspec

from trunkline.errors import DataDamaged

ID_BYTES: Final = 8
_ID_CHARACTERS: Final = 2 * ID_BYTES
_CLOSED: Final = b"C"
_BOUND: Final = b"B"
_OPEN: Final = b"O"


class Generation(msgspec.Struct, frozen=True):
    """One state of the register.

    Attributes:
        id: never used twice; 16 hex digits.
        server: which server of the cached tier it is bound to; empty: closed.
        open: whether what stands under its stamp is believed.
    """

    id: bytes
    server: bytes = b""
    open: bool = False

    @classmethod
    def closed(cls, number: int) -> "Generation":
        """A new one, of a random number of 64 bits: nothing is believed."""
        return cls(b"%016x" % number)

    @property
    def stamp(self) -> bytes:
        """What a cached head is written and believed under; empty: it is not to be believed."""
        return self.id if self.open else b""

    def bound(self, server: bytes) -> "Generation":
        """The next state of a closed one: acknowledging needs this server from now on."""
        return Generation(self.id, server)

    def opened(self) -> "Generation":
        """The next state of a bound one: what stands under its stamp is believed."""
        return Generation(self.id, self.server, True)

    def encode(self) -> bytes:
        """As it is stored."""
        state = _CLOSED if not self.server else _OPEN if self.open else _BOUND
        return state + self.id + self.server

    @classmethod
    def decode(cls, data: bytes) -> "Generation":
        """The inverse of `encode`; raises `DataDamaged`."""
        state, name, server = data[:1], data[1 : 1 + _ID_CHARACTERS], data[1 + _ID_CHARACTERS :]
        if len(name) < _ID_CHARACTERS or state not in (_CLOSED, _BOUND, _OPEN):
            raise DataDamaged(f"{data!r} is no cache generation.")
        return cls(name, server, state == _OPEN)
