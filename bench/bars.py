"""The scenarios, how each is run, and the bar that each figure must reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from processes import SERVER_CORE

# Beyond this share of a core taken by other processes a rate or a latency says little.
DISTURBED = 0.15

Judged = Literal["share of floor", "share of row", "at most", "at least", "told"]


@dataclass(frozen=True)
class Bar:
    """One figure of a result and what it is held against.

    A `share of floor` divides by the same figure of the floor in the same run, a `share of
    row` by that of the scenario `of`; `told` has no bar.
    """

    figure: str
    title: str
    judged: Judged = "told"
    bar: float = 0.0
    of: str = ""


@dataclass(frozen=True)
class Scenario:
    """How the generator is run, and the figures that count.

    `floor`: on the floor as well. `workers`, `cores`, `environment`: of a cluster's server;
    `evicts`: the lowest tier that holds no more what was written when it is read.
    `cold_away`: HBase answers nothing.
    """

    title: str
    generator: str
    bars: tuple[Bar, ...]
    flags: dict[str, Any] = field(default_factory=dict)
    timed: bool = False
    floor: bool = False
    archived: bool = False
    workers: int = 1
    cores: str = SERVER_CORE
    environment: Mapping[str, str] = field(default_factory=dict)
    evicts: str = ""
    cold_away: bool = False


LOSSES = (
    Bar("lost", "lost", "at most"),
    Bar("doubles", "doubles", "at most"),
    Bar("out_of_order", "out of order", "at most"),
)
DELIVERY = Bar("delivery_p99_ms", "delivery p99, ms", "told")

SCENARIOS: dict[str, Scenario] = {
    "pairs32": Scenario(
        "64 pairs, 32 in flight",
        "pairs",
        (
            Bar("acked_per_second", "acked/s", "share of floor", 0.09),
            Bar("ack_p99_ms", "ack p99, ms"),
            DELIVERY,
            *LOSSES,
            Bar("archived_after_seconds", "archiver caught up after, s", "at most", 60),
        ),
        {"w": 32},
        timed=True,
        floor=True,
        archived=True,
    ),
    "zipf": Scenario(
        "the same over 20,000 conversations, Zipf",
        "pairs",
        (Bar("acked_per_second", "acked/s", "share of row", 0.8, "pairs32"), *LOSSES),
        {"w": 32, "zipf": 20_000},
        timed=True,
    ),
    "pairs1": Scenario(
        "64 pairs, 1 in flight",
        "pairs",
        (
            Bar("acked_per_second", "acked/s", "share of floor", 0.18),
            Bar("ack_p99_ms", "ack p99, ms", "at most", 15),
            DELIVERY,
            *LOSSES,
        ),
        {"w": 1},
        timed=True,
        floor=True,
    ),
    "group200": Scenario(
        "group of 500 online, 200 messages/s",
        "group",
        (
            Bar("delivery_p99_ms", "delivery p99, ms", "at most", 15),
            Bar("deliveries_per_second", "deliveries/s"),
            *LOSSES,
        ),
        {"n": 500, "rate": 200},
        timed=True,
        floor=True,
    ),
    "group400": Scenario(
        "group of 500 online, 400 messages/s",
        "group",
        (
            Bar("delivery_p99_ms", "delivery p99, ms", "at most", 40),
            Bar("deliveries_per_second", "deliveries/s"),
            *LOSSES,
        ),
        {"n": 500, "rate": 400},
        timed=True,
        floor=True,
    ),
    "deaf": Scenario(
        "group of 20 online and 100 that read nothing, 150 messages/s of 8 KB",
        "group",
        (
            Bar("delivery_p99_ms", "delivery p99, ms"),
            Bar("grown_mib", "the server's growth, MiB", "at most", 70),
            *LOSSES,
        ),
        {"n": 20, "deaf": 100, "rate": 150, "body": 8_000},
        timed=True,
    ),
    "sync": Scenario(
        "member of 2,000 conversations",
        "sync",
        (
            Bar("changed_ms", "10 changed: sync and pull, ms", "at most", 15),
            Bar("nothing_ms", "nothing new: sync, ms", "at most", 5),
            Bar("cold_ms", "cold: sync, ms", "at most", 250),
            Bar("cold_and_pulled_ms", "cold: sync, pull, confirm, ms"),
        ),
        {"rounds": 9},
    ),
    "herd": Scenario(
        "500 members return at once, 1,000 entries behind",
        "herd",
        (
            Bar("last_complete_seconds", "last complete, s", "at most", 4),
            Bar("incomplete", "incomplete", "at most"),
            # 1,000 entries are a few pages; each may be asked of all three tiers.
            Bar("tier_reads_total", "reads of the tiers", "at most", 50),
        ),
        {"n": 500, "entries": 1000},
    ),
    "returning": Scenario(
        "100 members of 2,000 conversations return at once, again and again, beside 32 pairs",
        "returning",
        (
            Bar("p99_ratio", "ack p99, beside to alone", "at most", 2),
            Bar("alone_p99_ms", "ack p99 alone, ms"),
            Bar("returned_per_second", "returned/s"),
        ),
        {"n": 100},
        timed=True,
    ),
    "history": Scenario(
        "history of a conversation of 3,000",
        "history",
        (Bar("newest_80_ms", "newest 80, ms"), Bar("range_1000_ms", "range of 1,000, ms")),
    ),
    "idle": Scenario(
        "19,500 idle connections",
        "idle",
        (Bar("kib_per_connection", "KiB a connection", "at most", 8), Bar("connections", "held")),
        {"n": 19_500},
    ),
    "start": Scenario(
        "start, and recovery after kill -9 under load",
        "start",
        (
            Bar("messages", "messages stored before"),
            Bar("start_seconds", "start: launch to first ack, s", "at most", 2),
            Bar("recovery_seconds", "recovery: launch to first ack, s", "at most", 4),
        ),
    ),
}


NEWEST_ONLY = {"TRUNKLINE_SERVICES__NEWEST_GROUP": "1"}
"""Of a group hot keeps the last entry, so that whatever else is read comes from cold."""

# The peers' figures are of the same generator and the same MariaDB (DESIGN section 12).
CLUSTER_SCENARIOS: dict[str, Scenario] = {
    "pairs32": Scenario(
        "64 pairs, 32 in flight",
        "pairs",
        (
            Bar("acked_per_second", "acked/s", "at least", 10_000),
            Bar("server_cpu_us_per_message", "worker's CPU a message, µs", "at most", 35),
            Bar("stores_cpu_us_per_message", "the tiers' CPU a message, µs"),
            Bar("ack_p99_ms", "ack p99, ms"),
            DELIVERY,
            *LOSSES,
        ),
        {"w": 32},
        timed=True,
    ),
    "cold_away": Scenario(
        "64 pairs, 32 in flight, while HBase answers nothing",
        "pairs",
        (Bar("acked_per_second", "acked/s", "share of row", 0.9, "pairs32"), *LOSSES),
        {"w": 32},
        timed=True,
        cold_away=True,
    ),
    "cores2": Scenario(
        "64 pairs, 32 in flight, two workers and the tiers on two cores",
        "pairs",
        (
            Bar("acked_per_second", "acked/s", "share of row", 1.0, "pairs32"),
            Bar("server_cpu_us_per_message", "workers' CPU a message, µs"),
            Bar("stores_cpu_us_per_message", "the tiers' CPU a message, µs"),
            *LOSSES,
        ),
        {"w": 32, "zipf": 64},
        timed=True,
        workers=2,
        cores="0,1",
    ),
    "pairs1": Scenario(
        "64 pairs, 1 in flight",
        "pairs",
        (
            Bar("acked_per_second", "acked/s", "at least", 3 * 802),
            Bar("ack_p99_ms", "ack p99, ms", "at most", 40),
            DELIVERY,
            *LOSSES,
        ),
        {"w": 1},
        timed=True,
    ),
    "group100": Scenario(
        "group of 500 online on two workers, 100 messages/s",
        "group",
        (
            Bar("deliveries_per_second", "deliveries/s", "at least", 49_500),
            Bar("delivery_p99_ms", "delivery p99, ms", "at most", 40),
            *LOSSES,
        ),
        {"n": 500, "rate": 100},
        timed=True,
        workers=2,
    ),
    "hot": Scenario(
        "64 senders to one conversation over two workers, not pushed",
        "hot",
        (
            Bar("acked_per_second", "acked/s", "at least", 3_000),
            Bar("server_cpu_us_per_message", "workers' CPU a message, µs"),
            Bar("lost", "lost", "at most"),
            Bar("doubles", "twice", "at most"),
        ),
        {"w": 64},
        workers=2,
    ),
    "beside": Scenario(
        "64 pairs, 1 in flight, beside 64 senders to one conversation, on two workers",
        "beside",
        (
            Bar("acked_per_second", "acked/s"),
            Bar("ack_p99_ms", "ack p99, ms"),
            Bar("alone_p99_ms", "ack p99 alone at that rate, ms"),
            Bar("p99_ratio", "p99, beside to alone", "at most", 1.5),
            *LOSSES,
        ),
        workers=2,
    ),
    "crossing": Scenario(
        "group of 4 online on two workers, 2,000 messages/s",
        "group",
        (
            Bar("delivery_p99_ms", "delivery p99, ms", "at most", 15),
            Bar("deliveries_per_second", "deliveries/s", "at least", 7_900),
            *LOSSES,
        ),
        {"n": 4, "rate": 2000},
        timed=True,
        workers=2,
    ),
    "sync": Scenario(
        "member of 2,000 conversations",
        "sync",
        (
            Bar("changed_ms", "10 changed: sync and pull, ms", "at most", 15),
            Bar("nothing_ms", "nothing new: sync, ms", "at most", 6),
            Bar("cold_ms", "cold: sync, ms"),
        ),
        {"rounds": 9},
    ),
    "herd": Scenario(
        "500 members return at once over two workers, 1,000 entries behind",
        "herd",
        (
            Bar("last_complete_seconds", "last complete, s", "at most", 6),
            Bar("incomplete", "incomplete", "at most"),
        ),
        {"n": 500, "entries": 1000},
        workers=2,
    ),
    "herd_cold": Scenario(
        "the same, all but the newest entry from HBase",
        "herd",
        (
            Bar("last_complete_seconds", "last complete, s", "at most", 8),
            Bar("incomplete", "incomplete", "at most"),
        ),
        {"n": 500, "entries": 1000},
        workers=2,
        environment=NEWEST_ONLY,
        evicts="hot",
    ),
    "history": Scenario(
        "history of a conversation of 3,000, from Redis",
        "history",
        (Bar("newest_80_ms", "newest 80, ms", "at most", 2), Bar("range_1000_ms", "1,000, ms")),
    ),
    "history_hot": Scenario(
        "the same from MariaDB",
        "history",
        (Bar("newest_80_ms", "newest 80, ms", "at most", 4), Bar("range_1000_ms", "1,000, ms")),
        evicts="cached",
    ),
    "history_cold": Scenario(
        "the same from HBase",
        "history",
        (
            Bar("newest_80_ms", "newest 80, ms"),
            Bar("range_1000_first_ms", "1,000 for the first time, ms", "at most", 40),
            Bar("range_1000_ms", "1,000, ms"),
        ),
        environment=NEWEST_ONLY,
        evicts="hot",
    ),
}


@dataclass(frozen=True)
class Line:
    """One line of the table. `disturbed`: `met` holds for a machine that others used as well."""

    scenario: str
    figure: str
    value: float
    floor: float | None
    share: float | None
    bar: str
    met: bool | None
    disturbed: bool


def judge(
    scenarios: dict[str, Scenario],
    results: dict[str, dict[str, Any]],
    floors: dict[str, dict[str, Any]],
) -> list[Line]:
    """The table: one line for each figure that was measured, in the scenarios' order."""
    lines = []
    for name, scenario in scenarios.items():
        result = results.get(name, {})
        for bar in scenario.bars:
            if bar.figure in result:
                base = {"share of floor": floors.get(name), "share of row": results.get(bar.of)}
                lines.append(
                    _line(scenario, bar, result, base.get(bar.judged), floors.get(name, {}))
                )
    return lines


def is_disturbed(result: dict[str, Any] | None) -> bool:
    """Whether other processes took too much of the machine meanwhile."""
    return result is not None and result.get("others_cpu_share", 0.0) > DISTURBED


def _line(
    scenario: Scenario,
    bar: Bar,
    result: dict[str, Any],
    base: dict[str, Any] | None,
    of_floor: dict[str, Any],
) -> Line:
    value = result[bar.figure]
    share = met = None
    floor = None if bar in LOSSES else of_floor.get(bar.figure)
    sign = {"at most": "≤", "told": ""}.get(bar.judged, "≥")
    if base is not None:
        floor = base[bar.figure]
        share = value / floor
        met = share >= bar.bar
    elif bar.judged == "at most":
        met = value <= bar.bar
    elif bar.judged == "at least":
        met = value >= bar.bar
    what = {"share of floor": " of the floor", "share of row": f" of {bar.of}"}
    wanted = f"{sign} {bar.bar:g}{what.get(bar.judged, '')}" if sign else ""
    # What was lost or doubled counts on any machine.
    disturbed = bar not in LOSSES and (is_disturbed(result) or is_disturbed(base))
    return Line(scenario.title, bar.title, value, floor, share, wanted, met, disturbed)
