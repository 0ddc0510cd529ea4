"""Connections that have not said who they are: how many there may be, in all and an address."""

import ipaddress
from collections import Counter
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Stranger = TypeVar("Stranger", bound=Hashable)

PATIENCE_SECONDS: Final = 1.0
"""What a stranger has to greet in when others wait to be accepted: many at once, who do, pass."""
_NETWORK_BITS: Final = 64


class Strangers(Generic[Stranger]):
    """Those between acceptance and an accepted `hello`, the one first that came first."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._since: dict[Stranger, tuple[float, str]] = {}
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._since)

    def takes(self, address: str) -> bool:
        """Whether one more may come from this address."""
        return self._of_address[network(address)] < self._most_per_address

    @property
    def full(self) -> bool:
        """Whether nobody more may come."""
        return len(self._since) >= self._most

    def came(self, stranger: Stranger, address: str, now: float) -> None:
        """One more, from this address."""
        of = network(address)
        self._since[stranger] = (now, of)
        self._of_address[of] += 1

    def left(self, stranger: Stranger) -> None:
        """It greeted, or went; a second time does nothing."""
        since = self._since.pop(stranger, None)
        if since is not None:
            of = since[1]
            self._of_address[of] -= 1
            if not self._of_address[of]:
                del self._of_address[of]

    def slowest(self, now: float) -> Stranger | None:
        """The one to send away so that another may come: who had time to greet and did not."""
        for stranger, (since, _) in self._since.items():
            return stranger if now - since >= PATIENCE_SECONDS else None
        return None


def network(address: str) -> str:
    """What counts as one address: of IPv6 the network, since a host has all of it."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.split("%", 1)[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> _NETWORK_BITS)
