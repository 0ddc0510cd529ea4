"""What users may cause: one bucket a user for each kind of work, over all their connections."""

from collections.abc import Collection, Sequence
from typing import Final

from trunkline.core.session import TokenBucket
from trunkline.errors import RateLimited, TrunklineError, UserCrowded
from trunkline.model import Draft, Kind, UserId
from trunkline.ports.clock import Clock
from trunkline.services.list_bound import ListBound
from trunkline.services.settings import ServiceSettings

_LOOKED_THROUGH_FROM: Final = 100_000
"""Buckets from which on those that are full again are looked for, and forgotten."""


class Charges:
    """The buckets of one kind of work, of this worker."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        """`rate`: units a second; `burst`: units at once."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[UserId, TokenBucket] = {}
        self._look_from = _LOOKED_THROUGH_FROM

    def of(self, user: UserId) -> TokenBucket:
        """The user's bucket; whoever keeps it keeps it while the user is connected."""
        bucket = self._buckets.get(user)
        if bucket is None:
            now = self._clock.monotonic()
            if len(self._buckets) >= self._look_from:
                self._buckets = {u: b for u, b in self._buckets.items() if not b.full(now)}
                self._look_from = max(_LOOKED_THROUGH_FROM, 2 * len(self._buckets))
            bucket = self._buckets[user] = TokenBucket(self._rate, self._burst, now)
        return bucket

    def take(self, user: UserId, amount: float = 1.0) -> None:
        """Takes `amount` units of a user's; raises `RateLimited` with the time to wait."""
        self.of(user).take(self._clock.monotonic(), amount)


class Rates:
    """All that this worker lets users cause.

    Attributes:
        operations: by whom; one each.
    """

    def __init__(self, settings: ServiceSettings, clock: Clock, lists: ListBound) -> None:
        self._lists = lists
        self.operations = Charges(settings.sends_per_second, settings.send_burst, clock)
        self._named = Charges(settings.named_per_second, settings.named_burst, clock)
        self._joined = Charges(settings.joined_per_second, settings.joined_burst, clock)

    def naming(self, sender: UserId, users: Collection[UserId], *, begins: bool) -> None:
        """Charges a change of members to who asks for it: by the users named, since each costs
        a row, a line of a list, and what is sent; a conversation that begins is one more.

        Raises `RateLimited`.
        """
        self._named.take(sender, len(users) + begins)

    def joins(self, draft: Draft, users: Sequence[UserId]) -> None:
        """Charges those whom a draft puts into a conversation, as `joining`; the first message
        to somebody to its sender, too, as `naming`.

        Known only where the draft is decided on: there is no such conversation yet, and the
        sender may do so. Raises as they do.
        """
        begins = draft.kind is not Kind.JOINED
        if draft.kind is Kind.MESSAGE:
            self.naming(draft.sender, users[1:], begins=True)
        try:
            self.joining(draft.sender, users, begins=begins)
        except TrunklineError:
            if draft.kind is Kind.MESSAGE:
                self._named.of(draft.sender).give_back(len(users))
            raise

    def joining(self, sender: UserId, users: Collection[UserId], *, begins: bool) -> None:
        """Charges those who did not ask for it, for the sum over all who put them somewhere.

        Raises `ListFull`, or `UserCrowded` if one of them was put into too many conversations
        lately; then none of them is charged.
        """
        joined = [user for user in dict.fromkeys(users) if user != sender]
        listed = [sender, *joined] if begins else joined
        self._lists.check(listed)
        for number, user in enumerate(joined):
            try:
                self._joined.take(user)
            except RateLimited as error:
                for charged in joined[:number]:
                    self._joined.of(charged).give_back()
                raise UserCrowded(retry_after_seconds=error.retry_after_seconds) from None
        self._lists.joined(listed)
