"""The server's metrics, one table of names; `docs/reference/metrics.md` is held against it."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LAGS = (1, 5, 15, 30, 60, 120, 300, 900, 3_600, 4 * 3_600, 24 * 3_600)
_DEPTHS = (1, 10, 20, 40, 80, 160, 320, 1e3, 3e3, 6e3, 12e3, 24e3, 1e5, 1e6)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shares: dict[Gauge, list[Callable[[], float]]] = {}
        r = self.registry
        ProcessCollector(registry=r)
        self.connections = Gauge(
            "trunkline_connections", "Open connections after hello.", registry=r
        )
        self.closed = Counter(
            "trunkline_connections_closed", "Connections closed by the server.", ["code"],
            registry=r,
        )  # fmt: skip
        self.strangers = Gauge("trunkline_strangers", "Open connections before hello.", registry=r)
        self.strangers_refused = Counter(
            "trunkline_strangers_refused",
            "Connections closed since too many had not said hello.", registry=r,
        )  # fmt: skip
        self.outgoing = Gauge(
            "trunkline_outgoing_bytes", "Bytes that wait for readers that are slow.", registry=r
        )
        self.incoming = Gauge(
            "trunkline_incoming_bytes", "Bytes of frames and messages that have not ended yet.",
            registry=r,
        )  # fmt: skip
        self.frames_refused = Counter(
            "trunkline_refused", "Answers with an error, by its code.", ["code"], registry=r
        )
        self.members_not_authentic = Counter(
            "trunkline_members_not_authentic",
            "Member rows that do not have their MAC, each time one was read.", registry=r,
        )  # fmt: skip
        self.entries = Counter("trunkline_entries", "Entries committed.", registry=r)
        self.duplicates = Counter(
            "trunkline_duplicates", "Resends answered with the first seq.", registry=r
        )
        self.append_seconds = Histogram(
            "trunkline_append_seconds", "From taking a batch to its commit.", registry=r,
            buckets=_LATENCY,
        )  # fmt: skip
        self.append_batch = Histogram(
            "trunkline_append_batch_drafts", "Drafts a batch.", registry=r, buckets=_COUNTS
        )
        self.append_queue = Gauge(
            "trunkline_append_queue_drafts", "Drafts waiting for a batch.", registry=r
        )
        self.appends_contended = Counter(
            "trunkline_appends_contended",
            "Drafts whose conversation another worker held: they went on in the second lane.",
            registry=r,
        )
        self.pushed = Counter(
            "trunkline_pushed_entries", "Entries written to online endpoints.", registry=r
        )
        self.pulled = Counter("trunkline_pulled_entries", "Entries answered to pulls.", registry=r)
        self.syncs = Counter("trunkline_syncs", "Syncs answered.", registry=r)
        self.offsets_dropped = Counter(
            "trunkline_offsets_dropped",
            "Read offsets given up, since too many waited or a shard was taken over.",
            registry=r,
        )
        self.endpoints_ahead = Counter(
            "trunkline_endpoints_ahead",
            "Conversations of which an endpoint holds more than the store.", registry=r,
        )  # fmt: skip
        self.store_generation = Gauge(
            "trunkline_store_generation", "The store's generation; 0: not known.", registry=r
        )
        self._count_reads(r)
        self._count_archiving(r)
        self._count_crossings(r)

    def _count_reads(self, r: CollectorRegistry) -> None:
        """What pulls ask for, and which tier answers."""
        self.pull_depth = Histogram(
            "trunkline_pull_depth_entries",
            "How far before the head the oldest entry of a pulled range lies; the newest is 1.",
            ["kind"], registry=r, buckets=_DEPTHS,
        )  # fmt: skip
        self.tier_reads = Counter(
            "trunkline_tier_reads", "Reads that a tier answered.", ["tier"], registry=r
        )
        self.tier_hits = Counter(
            "trunkline_tier_hits", "Those after which no lower tier was needed.", ["tier"],
            registry=r,
        )  # fmt: skip
        self.tier_entries = Counter(
            "trunkline_tier_entries", "Entries that a tier gave.", ["tier"], registry=r
        )
        self.tier_seconds = Histogram(
            "trunkline_tier_read_seconds", "How long a tier took to answer a read.", ["tier"],
            registry=r, buckets=_LATENCY,
        )  # fmt: skip
        self.tier_failures = Counter(
            "trunkline_tier_failures", "Reads that a tier did not answer, by the error's code.",
            ["tier", "code"], registry=r,
        )  # fmt: skip
        self.reads_shared = Counter(
            "trunkline_reads_shared", "Reads that another read of the same range served.",
            registry=r,
        )  # fmt: skip
        self.page_cache = Gauge(
            "trunkline_page_cache_bytes", "Encoded runs that are kept in memory.", registry=r
        )
        self.segment_cache = Gauge(
            "trunkline_segment_cache_bytes",
            "Entries of the cold tier that are kept in memory, about.", registry=r,
        )  # fmt: skip
        self.segment_cache_entries = Counter(
            "trunkline_segment_cache_entries",
            "Entries given from there instead of the cold tier.", registry=r,
        )  # fmt: skip

    def share(
        self,
        gauge: Gauge,
        part: Callable[[], float],
        join: Callable[[Iterable[float]], float] = sum,
    ) -> None:
        """Adds one of several parts that a gauge joins to one number: their sum, or the highest."""
        parts = self._shares.setdefault(gauge, [])
        parts.append(part)
        gauge.set_function(lambda: join([of_part() for of_part in parts]))

    def _count_archiving(self, r: CollectorRegistry) -> None:
        """What the archiver does."""
        self.archived = Counter(
            "trunkline_archived_entries", "Entries copied to cold and verified.", registry=r
        )
        self.archive_failures = Counter(
            "trunkline_archive_failures", "Archive tasks that failed, by code.", ["code"],
            registry=r,
        )  # fmt: skip
        self.archive_waiting = Gauge(
            "trunkline_archive_waiting", "Conversations not yet fully archived.", registry=r
        )
        self.archive_oldest_waiting = Gauge(
            "trunkline_archive_oldest_waiting_seconds",
            "How long the one of them waits that waits longest.", registry=r,
        )  # fmt: skip
        self.archive_lag = Histogram(
            "trunkline_archive_lag_seconds",
            "Age of the oldest entry of what was copied at a time, when it was safe in cold.",
            registry=r, buckets=_LAGS,
        )  # fmt: skip
        self.archive_pace = Gauge(
            "trunkline_archive_pace_entries",
            "Entries a second that the archiver may copy now, of all databases.", registry=r,
        )  # fmt: skip
        self.archive_yields = Counter(
            "trunkline_archive_yields",
            "Times that the archiver slowed down, since sends waited for what it uses, too.",
            registry=r,
        )  # fmt: skip

    def _count_crossings(self, r: CollectorRegistry) -> None:
        """What several workers have besides."""
        self.packets = Counter(
            "trunkline_bus_packets", "Packets between workers, beats too.", ["way"], registry=r
        )
        self.packet_bytes = Counter(
            "trunkline_bus_bytes", "Bytes of these packets.", ["way"], registry=r
        )
        self.crossed_frames = Counter(
            "trunkline_bus_frames", "Push frames in these packets.", ["way"], registry=r
        )
        self.bus_gaps = Counter(
            "trunkline_bus_gaps", "Times that packets from other workers were missing.", registry=r
        )
        self.cached_append_failures = Counter(
            "trunkline_cached_append_failures",
            "Batches acknowledged without the cached tier, which did not answer in time.",
            registry=r,
        )  # fmt: skip
        self.reloads = Counter(
            "trunkline_membership_reloads",
            "Member lists read anew, since a frame came of a newer one.", registry=r,
        )  # fmt: skip
        self.repairs = Counter(
            "trunkline_push_repairs",
            "Conversations whose watchers were told to sync, since a push had been lost.",
            registry=r,
        )  # fmt: skip
        self.generation_changes = Counter(
            "trunkline_cache_generations",
            "Times that this worker closed, bound or opened a database's cache generation.",
            ["change"], registry=r,
        )  # fmt: skip
        self.cached_heads = Counter(
            "trunkline_cached_heads", "Heads that syncs compared with, by where they were found.",
            ["tier"], registry=r,
        )  # fmt: skip
        self.unpublished = Gauge(
            "trunkline_bus_unpublished",
            "Conversations whose head other workers are still to be told.", registry=r,
        )  # fmt: skip
