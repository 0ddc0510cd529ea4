"""Counts what an endpoint saw."""

import msgspec


class Counters(msgspec.Struct):
    """What an endpoint saw since its client was entered.

    `pushed` and `pulled` count entries that became part of a copy, `set_apart` those that the
    store does not have; `stores_replaced` and `stores_restored` how often it was another store,
    or another life of it.
    """

    pushed: int = 0
    pulled: int = 0
    gaps_seen: int = 0
    duplicates_dropped: int = 0
    digest_mismatches: int = 0
    resent: int = 0
    stores_replaced: int = 0
    stores_restored: int = 0
    set_apart: int = 0
