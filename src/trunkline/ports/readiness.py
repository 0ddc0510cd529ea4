"""Readiness: what keeps a tier from its work, as its adapter knows it."""

from collections.abc import Callable

import msgspec


class TierHealth(msgspec.Struct, frozen=True):
    """One tier of a process, or one server of it: "journal", "database chat-0", "cold".

    `needed`: without it this process cannot do what it is there for; others are shown only.
    `failure` gives the code of the error that the tier's work fails with now, or nothing. It is
    called on the loop at each question: it neither waits nor raises. Whoever keeps it notes a
    failure with the first call that meets it, and goes on trying by itself, within a second,
    while nobody else does: a process that is not ready is sent nothing.
    """

    tier: str
    needed: bool
    failure: Callable[[], str]
