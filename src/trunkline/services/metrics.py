"""The server's metrics, one table of names; `docs/reference/metrics.md` is held against it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.connections = Gauge(
            "trunkline_connections", "Open connections after hello.", registry=r
        )
        self.closed = Counter(
            "trunkline_connections_closed", "Connections closed by the server.", ["code"],
            registry=r,
        )  # fmt: skip
        self.frames_refused = Counter(
            "trunkline_refused", "Answers with an error, by its code.", ["code"], registry=r
        )
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
        self.tier_reads = Counter(
            "trunkline_tier_reads", "Reads that reached a tier.", ["tier"], registry=r
        )
        self.tier_entries = Counter(
            "trunkline_tier_entries", "Entries that a tier gave.", ["tier"], registry=r
        )
        self.reads_shared = Counter(
            "trunkline_reads_shared", "Reads that another read of the same range served.",
            registry=r,
        )  # fmt: skip
        self.syncs = Counter("trunkline_syncs", "Syncs answered.", registry=r)
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
        self._count_crossings(r)

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
