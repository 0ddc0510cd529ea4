"""Readings: numbers that an adapter keeps anyway, looked at when somebody asks for metrics."""

from collections.abc import Callable

import msgspec


class Reading(msgspec.Struct, frozen=True):
    """One number. `metric` and `label` stand in the table of the services' metrics.

    `read` is called on the loop at each scrape: it neither waits nor raises.
    """

    metric: str
    label: str
    read: Callable[[], float]
