"""Shows what adapters count as metrics: it costs nothing until somebody asks."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trunkline.ports.readings import Reading


class Shown(msgspec.Struct, frozen=True):
    """How a metric is shown; without `label` it is one number."""

    counter: bool
    help: str
    label: str = ""


READINGS: Final = {
    "trunkline_cached_evicted_entries": Shown(
        True, "Entries that left the cached tier, as far as this process did or saw it.", "cause"
    ),
    "trunkline_cached_unanswered": Shown(
        True, "Calls that went on without an answer of the cached tier or the bus."
    ),
    "trunkline_cached_away": Shown(
        False, "Servers of the cached tier that are not asked now: no answer, or they refused."
    ),
    "trunkline_cached_refusals": Shown(
        True, "Times that a server of the cached tier was left, or not taken, by why.", "cause"
    ),
    "trunkline_cached_registrations_lost": Shown(
        True, "Places where the cached tier no longer knew that this worker watches or serves."
    ),
    "trunkline_hot_away": Shown(
        False, "1 while commits of a hot database fail, or it is asked nothing.", "database"
    ),
    "trunkline_hot_retries": Shown(
        True, "Transactions that were tried again: others' locks, a taken key, a lost session.",
        "cause",
    ),
    "trunkline_hot_unknown_outcomes": Shown(True, "Commits whose answer was lost."),
    "trunkline_hot_unsettled": Shown(
        False, "Conversations of which it is not settled yet what such a commit left."
    ),
    "trunkline_hot_shards_gone": Shown(
        False, "Shards that this process's settings name and that their database holds no more."
    ),
    "trunkline_hot_sessions_busy": Shown(
        False, "Sessions with the hot databases that work now.", "pool"
    ),
    "trunkline_hot_sessions_wanted": Shown(
        False, "Callers that wait, since all sessions of a pool work.", "pool"
    ),
    "trunkline_hot_lists_untold": Shown(
        False, "Changes of users' lists that were found untold seconds after their commit."
    ),
    "trunkline_hot_orphaned_tasks": Shown(
        True, "Times that an archive task was met whose conversation is not there."
    ),
    "trunkline_cold_failed_tries": Shown(True, "Questions to the cold tier that failed once."),
    "trunkline_cold_unavailable": Shown(
        True, "Questions that were given up or not asked: no answer, none lately, all busy."
    ),
    "trunkline_cold_busy": Shown(False, "Connections to the cold tier that work now."),
    "trunkline_sqlite_info": Shown(
        False, "1, with the version of the SQLite library that keeps the messages.", "version"
    ),
    "trunkline_sqlite_log_bytes": Shown(
        False, "Bytes of a database file's write-ahead log.", "file"
    ),
    "trunkline_cold_away": Shown(
        False, "1 while the cold tier is asked one question at a time, since it did not answer."
    ),
}  # fmt: skip
"""Names as they are registered: `_total` is added to counters."""


class Readings(Collector):
    """Readings of one process; several of the same metric and label are added up."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        """Raises `KeyError` where a metric is not in the table."""
        self._readings = [(READINGS[reading.metric], reading) for reading in readings]

    def collect(self) -> Iterator[Metric]:
        """The metrics that there are readings of."""
        sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for _, reading in self._readings:
            sums[reading.metric][reading.label] += reading.read()
        for name, by_label in sums.items():
            shown = READINGS[name]
            family = CounterMetricFamily if shown.counter else GaugeMetricFamily
            labels = [shown.label] if shown.label else []
            metric = family(name, shown.help, labels=labels)
            for label, value in by_label.items():
                metric.add_metric([label] if labels else [], value)
            yield metric
